"""What is said back: the machines' answers, and what people at HHS did.

The control bodies (receipts, refusal, void, resend, head) are signed and travel in clear, so none
of them holds personal data. The replies of people (acknowledgement, disposition, action, outcome)
are coarse on purpose: what HHS learned of a child stays at HHS, and nothing here has room for it.
"""

from enum import StrEnum
from typing import Annotated, Any, ClassVar, Literal, Self

from pydantic import AfterValidator, Field, StringConstraints, model_validator
from pydantic_core import PydanticCustomError

from schemas.canonical import canonical
from schemas.errors import RejectedError
from schemas.fields import (
    Body,
    Count,
    ErrorCode,
    Hash,
    Id,
    Ordinal,
    StreamName,
    Time,
    broken,
)

RECEIPT_ENTRIES_MAX = 500
RECORD_BYTES_MAX = 8192
# A tree of 2^63 records has a frontier of at most 63 hashes.
HASHES_MAX = 64

Note = Annotated[str, StringConstraints(min_length=1, max_length=4096)]
Hashes = Annotated[tuple[Hash, ...], Field(max_length=HASHES_MAX, strict=False)]
FieldPath = Annotated[str, StringConstraints(pattern=r"^[a-z0-9_.()* -]{1,128}$")]


def _read_record(record: dict[str, Any]) -> dict[str, Any]:
    try:
        size = len(canonical(record))
    except RejectedError:
        raise PydanticCustomError("rule", "must have a canonical form") from None
    if size > RECORD_BYTES_MAX:
        raise PydanticCustomError("rule", "must be at most 8 KiB")
    return record


class ReceiptEntry(Body):
    """One record of a sealed batch: in full if it answers the reader, else its leaf hash alone."""

    schema_rules: ClassVar[dict[str, Any]] = {"minProperties": 1, "maxProperties": 1}

    record: Annotated[dict[str, Any], AfterValidator(_read_record)] | None = Field(
        default=None, description="Its canonical bytes are the input of the leaf hash."
    )
    leaf: Hash | None = None

    @model_validator(mode="after")
    def _holds_together(self) -> Self:
        if (self.record is None) == (self.leaf is None):
            raise broken("record", "either the record or its leaf hash is given")
        return self


class Receipts(Body):
    """The answer to a sealed batch: its records, the frontier before them, and the checkpoint.

    The reader recomputes the root from frontier and entries, finds it in the checkpoint, and
    derives an inclusion proof for each message it had sent. A receipts/1.1 is told again, after the
    log had told of more: `grown` is the newest checkpoint by then, with the proof that this one is
    its beginning.
    """

    versions: ClassVar[tuple[str, ...]] = ("receipts/1.0", "receipts/1.1")
    schema_rules: ClassVar[dict[str, Any]] = {
        "if": {"properties": {"schema_version": {"const": "receipts/1.0"}}},
        "then": {"properties": {"grown": False, "consistency": False}},
        "else": {"required": ["grown", "consistency"]},
    }

    schema_version: Literal["receipts/1.0", "receipts/1.1"] = "receipts/1.1"
    index: Count = Field(description="Record index of the first entry; the size before.")
    frontier: Hashes
    entries: Annotated[
        tuple[ReceiptEntry, ...],
        Field(min_length=1, max_length=RECEIPT_ENTRIES_MAX, strict=False),
    ]
    checkpoint: Note
    grown: Note | None = None
    consistency: Hashes | None = Field(
        default=None, description="Proof that the checkpoint is the beginning of the grown one."
    )

    @model_validator(mode="after")
    def _holds_together(self) -> Self:
        again = self.schema_version != "receipts/1.0"
        for name, found in (("grown", self.grown), ("consistency", self.consistency)):
            if (found is not None) != again:
                raise broken(name, "is there from receipts/1.1 on")
        return self


class Refusal(Body):
    """This message cannot be taken, and why. `final` means that no redrive will ever take it."""

    versions: ClassVar[tuple[str, ...]] = ("refusal/1.0",)

    schema_version: Literal["refusal/1.0"] = "refusal/1.0"
    message_id: Id
    stream: StreamName
    generation: Ordinal
    sequence: Ordinal
    envelope: Hash
    code: ErrorCode
    field: FieldPath | None = None
    final: bool
    at: Time


class Void(Body):
    """The sender declares sequences of its stream that will never carry a message."""

    versions: ClassVar[tuple[str, ...]] = ("void/1.0",)

    schema_version: Literal["void/1.0"] = "void/1.0"
    stream: StreamName
    generation: Ordinal
    first: Ordinal
    last: Ordinal
    code: ErrorCode
    at: Time

    @model_validator(mode="after")
    def _holds_together(self) -> Self:
        if self.last < self.first:
            raise broken("last", "must not come before first")
        return self


class Resend(Body):
    """The recipient misses these sequences and asks for the same bytes again."""

    versions: ClassVar[tuple[str, ...]] = ("resend/1.0",)

    schema_version: Literal["resend/1.0"] = "resend/1.0"
    stream: StreamName
    generation: Ordinal
    first: Ordinal
    last: Ordinal

    @model_validator(mode="after")
    def _holds_together(self) -> Self:
        if self.last < self.first:
            raise broken("last", "must not come before first")
        return self


class StreamHead(Body):
    """How far a stream was read: up to here without a gap."""

    generation: Ordinal
    sequence: Count


class Head(Body):
    """Where the sender's ledger stands, and how far it read; never makes a checkpoint by itself.

    From head/1.1 on `since` is the size that `consistency` begins at, the newest one which the
    recipient cosigned (0: none yet), and `cosigned` is the recipient's own checkpoint with the
    sender's cosignature under it.
    """

    versions: ClassVar[tuple[str, ...]] = ("head/1.0", "head/1.1")
    schema_rules: ClassVar[dict[str, Any]] = {
        "if": {"properties": {"schema_version": {"const": "head/1.0"}}},
        "then": {"properties": {"since": False, "cosigned": False}},
        "else": {"required": ["since"]},
    }

    schema_version: Literal["head/1.0", "head/1.1"] = "head/1.1"
    checkpoint: Note
    consistency: Hashes = Field(
        description="Proof that the checkpoint told before is a prefix of this one."
    )
    highest: Annotated[dict[StreamName, StreamHead], Field(max_length=1024)]
    since: Count | None = None
    cosigned: Note | None = None

    @model_validator(mode="after")
    def _holds_together(self) -> Self:
        if (self.since is None) != (self.schema_version == "head/1.0"):
            raise broken("since", "is there from head/1.1 on")
        if self.cosigned is not None and self.since is None:
            raise broken("cosigned", "is there from head/1.1 on")
        return self


class Acknowledgement(Body):
    """A named person at HHS took the notice; the name stays at HHS."""

    versions: ClassVar[tuple[str, ...]] = ("acknowledgement/1.0",)

    schema_version: Literal["acknowledgement/1.0"] = "acknowledgement/1.0"
    notice_id: Id
    at: Time


class DispositionVerdict(StrEnum):
    """What HHS makes of a notice."""

    ACCEPTED = "ACCEPTED"
    REJECTED = "REJECTED"
    HELD = "HELD"


class DispositionCode(StrEnum):
    """Why a notice was rejected or held; `codes/dispositions.json` has the words."""

    UNMATCHED = "UNMATCHED"
    AMBIGUOUS_MATCH = "AMBIGUOUS_MATCH"
    NOT_UAC = "NOT_UAC"
    BAD_SCHEMA = "BAD_SCHEMA"
    BAD_SIGNATURE = "BAD_SIGNATURE"
    ADULT = "ADULT"
    IN_ORR_CARE = "IN_ORR_CARE"
    NEED_INFO = "NEED_INFO"


class Disposition(Body):
    """HHS can work the notice, or cannot, or not yet. A code, never free text."""

    versions: ClassVar[tuple[str, ...]] = ("disposition/1.0",)
    schema_rules: ClassVar[dict[str, Any]] = {
        "if": {"properties": {"disposition": {"const": "ACCEPTED"}}},
        "then": {"properties": {"code": False}},
        "else": {"required": ["code"]},
    }

    schema_version: Literal["disposition/1.0"] = "disposition/1.0"
    notice_id: Id
    disposition: DispositionVerdict
    code: DispositionCode | None = None
    at: Time

    @model_validator(mode="after")
    def _holds_together(self) -> Self:
        if (self.disposition is DispositionVerdict.ACCEPTED) != (self.code is None):
            raise broken("code", "is given for REJECTED and HELD, and for them alone")
        return self


class ActionCode(StrEnum):
    """What was begun. Which of these may leave HHS is policy; by default ACTION_STARTED alone."""

    ACTION_STARTED = "ACTION_STARTED"
    CONTACT_ATTEMPTED = "CONTACT_ATTEMPTED"
    PRS_TASKED = "PRS_TASKED"
    NOC_RAISED = "NOC_RAISED"
    REFERRED_CPS = "REFERRED_CPS"
    REFERRED_LE = "REFERRED_LE"
    REFERRED_TRAFFICKING = "REFERRED_TRAFFICKING"
    LSP_TOLD = "LSP_TOLD"
    NONE = "NONE"


class Action(Body):
    """Somebody at HHS began to act."""

    versions: ClassVar[tuple[str, ...]] = ("action/1.0",)

    schema_version: Literal["action/1.0"] = "action/1.0"
    notice_id: Id
    code: ActionCode
    attempts: Count | None = None
    at: Time


class OutcomeCode(StrEnum):
    """What came of a case, as coarse as it goes back to ICE."""

    CONTACT_MADE = "CONTACT_MADE"
    CONTACT_NOT_MADE = "CONTACT_NOT_MADE"
    IN_CARE = "IN_CARE"
    CLOSED_NO_ACTION = "CLOSED_NO_ACTION"
    TRANSFERRED = "TRANSFERRED"


class Outcome(Body):
    """What came of the case. The detail behind it stays at HHS."""

    versions: ClassVar[tuple[str, ...]] = ("outcome/1.0",)

    schema_version: Literal["outcome/1.0"] = "outcome/1.0"
    notice_id: Id
    code: OutcomeCode
    at: Time
