"""What one line of each code list says."""

from collections.abc import Mapping
from dataclasses import dataclass
from enum import StrEnum

from schemas.notice import (
    CustodyFlag,
    HearingMedium,
    HearingOutcome,
    HearingType,
    NoticeKind,
    OfficeBasis,
    ReasonCode,
    UacBasis,
)
from schemas.reply import ActionCode, DispositionVerdict, OutcomeCode


class Treatment(StrEnum):
    """What a court's code means for a notice: send at once, ask a person first, or nothing."""

    SEND = "send"
    CONFIRM = "confirm"
    NONE = "none"


class Scope(StrEnum):
    """What a court's flag says of a child. A screen only: DHS's designation is the authority."""

    IN = "in"
    OUT = "out"
    CHECK = "check"


@dataclass(frozen=True, slots=True)
class Meaning:
    """A code that needs nothing but words."""

    meaning: str


@dataclass(frozen=True, slots=True)
class BaseCity:
    """A court, or an office in the court's list that holds no hearings (`court` false).

    `fallback_aor` is the area of responsibility that the court stands in. It is where the court
    is, not where the child lives: see `guess_office`.
    """

    city: str
    state: str
    zone: str
    court: bool
    fallback_aor: str | None = None


@dataclass(frozen=True, slots=True)
class HearingLocation:
    """A place where children are heard; `docket` is juvenile, juvenile_detained or shelter."""

    place: str
    docket: str
    base_city: str | None = None


@dataclass(frozen=True, slots=True)
class Adjournment:
    """Why a hearing was put off.

    A `trap` says that nobody can have missed the hearing, however much its words sound like it.
    `if_sent` is the reason to tell HHS when a notice went out before this code appeared.
    """

    meaning: str
    treatment: Treatment
    trap: bool = False
    if_sent: ReasonCode | None = None


@dataclass(frozen=True, slots=True)
class OtherCompletion:
    """How a proceeding ended without a decision.

    `outcome` is what a notice says of it. `holds` means that a missed hearing of this proceeding
    waits for a person, because the hearing may have been vacated by the move.
    """

    meaning: str
    treatment: Treatment
    outcome: HearingOutcome | None = None
    holds: bool = False


@dataclass(frozen=True, slots=True)
class AbsentiaFlag:
    """Whether a decision was made in absentia."""

    meaning: str
    treatment: Treatment
    outcome: HearingOutcome | None = None


@dataclass(frozen=True, slots=True)
class CaseType:
    """A kind of case; `treatment` is of a decision in it that was made in absentia."""

    meaning: str
    treatment: Treatment


@dataclass(frozen=True, slots=True)
class CourtMedium:
    """How a hearing was held; where none was held (`held` false) nobody can have missed it."""

    meaning: str
    medium: HearingMedium
    held: bool


@dataclass(frozen=True, slots=True)
class CalendarType:
    """What a hearing was for."""

    meaning: str
    hearing_type: HearingType


@dataclass(frozen=True, slots=True)
class RecordType:
    """A kind of schedule row; only a candidate can be a missed hearing."""

    meaning: str
    candidate: bool


@dataclass(frozen=True, slots=True)
class CustodyStatus:
    """The custody of a case, as a notice tells it."""

    meaning: str
    custody_flag: CustodyFlag


@dataclass(frozen=True, slots=True)
class Juvenile:
    """A flag of the court that says whether a case is a child's; `code` is its short name."""

    code: str
    meaning: str
    scope: Scope
    uac_basis: UacBasis | None = None


@dataclass(frozen=True, slots=True)
class Nationality:
    """A nationality; `genc` is None where no country of today is meant."""

    name: str
    genc: str | None


@dataclass(frozen=True, slots=True)
class Language:
    """A language; `iso` is None where the court's code does not name one language of ISO 639-3."""

    name: str
    iso: str | None


@dataclass(frozen=True, slots=True)
class Office:
    """An area of responsibility: where it is, what it covers, and how else it is written."""

    name: str
    covers: str
    aliases: tuple[str, ...] = ()
    note: str = ""


@dataclass(frozen=True, slots=True)
class State:
    """A state or territory: the one area it lies in, or those it is divided into."""

    name: str
    aor_code: str | None
    divided: tuple[str, ...] = ()


@dataclass(frozen=True, slots=True)
class OfficeGuess:
    """An area of responsibility and what it rests on."""

    aor_code: str
    basis: OfficeBasis


@dataclass(frozen=True, slots=True)
class Reason:
    """Why a notice is corrected, withdrawn or updated, and which of these it can be."""

    meaning: str
    kinds: tuple[NoticeKind, ...]


@dataclass(frozen=True, slots=True)
class DetailedOutcome:
    """What a person at HHS found; `outcome` is all that ICE hears of it."""

    meaning: str
    outcome: OutcomeCode


@dataclass(frozen=True, slots=True)
class DispositionReason:
    """Why HHS rejects or holds a notice, and which of the two it can be."""

    meaning: str
    dispositions: tuple[DispositionVerdict, ...]


@dataclass(frozen=True, slots=True)
class Clock:
    """A deadline: so many seconds, or so many working days (the other is None)."""

    seconds: int | None = None
    working_days: int | None = None


@dataclass(frozen=True, slots=True)
class Policy:
    """One version of what the agencies agreed on: clocks by name, and what may go back to ICE.

    Clocks: receipt, disposition, action_urgent, action_routine, outcome. A replay that acts on more
    events than `replay_approval_above` needs a second person's approval. Contents of a notice are
    kept at an agency for `retention_days` after the last act on it. A key is used for `key_days`.
    """

    version: str
    meaning: str
    clocks: Mapping[str, Clock]
    actions_to_ice: tuple[ActionCode, ...]
    replay_approval_above: int
    retention_days: Mapping[str, int]
    key_days: int
