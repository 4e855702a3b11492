"""How a signing key ends: retired at one place of each stream, or revoked.

A *retirement* names the last sequence of each stream that the old key signed. Old and new key both
sign it, so that neither alone can say it: up to there the old key's messages are taken, later ones
never. A *revocation* ends a key that others may have: nothing signed by it is taken any more, and
as evidence it counts only for what was provably there before. No key signs a revocation; like the
keys themselves it is believed for the party file's fingerprint, which people compared. Since when
others had the key is the signer's word alone. So it takes no evidence from the other agency that
the signer had cosigned before that one learned of it: such evidence is *disputed*, and says so.
"""

from collections.abc import Iterable, Mapping
from dataclasses import dataclass
from datetime import datetime
from typing import Annotated, Self

from pydantic import Field, StringConstraints, model_validator

from schemas.canonical import b64_bytes, canonical, format_time
from schemas.envelope import Envelope, SigningKey, VerifyKey
from schemas.errors import RejectedError
from schemas.fields import Body, Count, Hash, Ordinal, StreamName, Time, broken
from schemas.jose import Jws, read_jws, sign_jws, verify_jws

TYP = "noticebus-retirement+jws"
STREAMS_MAX = 256

# A JWS without its payload: the payload is the statement that it stands beside.
Detached = Annotated[str, StringConstraints(pattern=r"^[A-Za-z0-9_-]{1,512}\.\.[A-Za-z0-9_-]{86}$")]


class StreamEnd(Body):
    """The last sequence of a stream that a key signed; 0 where it signed none."""

    generation: Ordinal
    sequence: Count


class Retirement(Body):
    """The end of the key `kid`, after which `successor` signs; both signed it (detached JWS)."""

    kid: Hash
    successor: Hash
    source: Annotated[str, StringConstraints(min_length=1, max_length=256)]
    last: Annotated[dict[StreamName, StreamEnd], Field(max_length=STREAMS_MAX)]
    at: Time
    by_old: Detached
    by_new: Detached

    @model_validator(mode="after")
    def _holds_together(self) -> Self:
        if self.kid == self.successor:
            raise broken("successor", "is the retired key itself")
        for field, text, kid in (
            ("by_old", self.by_old, self.kid),
            ("by_new", self.by_new, self.successor),
        ):
            try:
                signed = self._jws(text)
            except RejectedError:
                raise broken(field, "is not a signature of this statement") from None
            if signed.kid != kid:
                raise broken(field, "was made by another key")
        return self

    def verify(self, keys: Mapping[str, VerifyKey]) -> bool:
        """Tell whether both keys, found in `keys`, belong to the source and did sign this."""
        for kid, text in ((self.kid, self.by_old), (self.successor, self.by_new)):
            key = keys.get(kid)
            if key is None or key.owner != self.source:
                return False
            signed = self._jws(text)
            try:
                verify_jws(signed.signature, signed.digest, key)
            except RejectedError:
                return False
        return True

    def reaches(self, *, stream: str, generation: int, sequence: int) -> bool:
        """Tell whether the retired key may have signed this sequence."""
        end = self.last.get(stream)
        return end is not None and (generation, sequence) <= (end.generation, end.sequence)

    def _jws(self, detached: str) -> Jws:
        header, _, signature = detached.encode("ascii").split(b".")
        said = self.model_dump(mode="json", exclude={"by_old", "by_new"})
        return read_jws(b".".join((header, b64_bytes(canonical(said)), signature)), TYP)


class Revocation(Body):
    """The end of the key `kid`: from `at` on nothing may be believed for its signature alone."""

    kid: Hash
    at: Time


@dataclass(frozen=True, slots=True, kw_only=True)
class Ending:
    """What ended a key; a retired key may be revoked as well, and a revocation counts for more."""

    retired: Retirement | None = None
    revoked: Revocation | None = None

    def or_earlier(self, other: "Ending | None") -> "Ending":
        """Return both ends together; of two revocations the earlier, which says more."""
        if other is None:
            return self
        found = [each for each in (self.revoked, other.revoked) if each is not None]
        return Ending(
            retired=self.retired or other.retired,
            revoked=min(found, key=lambda each: each.at) if found else None,
        )


def retire(
    old: SigningKey,
    new: SigningKey,
    *,
    source: str,
    last: Mapping[str, tuple[int, int]],
    at: datetime,
) -> Retirement:
    """Return the statement that ends `old`; `last` is its (generation, sequence) by stream."""
    ends = {
        stream: StreamEnd(generation=generation, sequence=sequence)
        for stream, (generation, sequence) in last.items()
    }
    payload = canonical(
        {
            "kid": old.kid,
            "successor": new.kid,
            "source": source,
            "last": {stream: end.model_dump(mode="json") for stream, end in ends.items()},
            "at": format_time(at),
        }
    )
    by_old, by_new = (
        b"..".join(sign_jws(payload, key, TYP).split(b".")[::2]).decode("ascii")
        for key in (old, new)
    )
    return Retirement(
        kid=old.kid,
        successor=new.kid,
        source=source,
        last=ends,
        at=at,
        by_old=by_old,
        by_new=by_new,
    )


def refuse_ended(envelope: Envelope, endings: Mapping[str, Ending]) -> None:
    """Check that the key which signed an envelope had not ended there.

    Raises `RejectedError` NB-3180 (revoked), NB-3181 (retired before this sequence).
    """
    ending = endings.get(envelope.kid)
    if ending is None:
        return
    if ending.revoked is not None:
        raise RejectedError("NB-3180", kid=envelope.kid)
    told = envelope.attributes
    if ending.retired is not None and not ending.retired.reaches(
        stream=told.stream, generation=told.generation, sequence=told.sequence
    ):
        raise RejectedError("NB-3181", kid=envelope.kid, stream=told.stream, sequence=told.sequence)


@dataclass(frozen=True, slots=True, kw_only=True)
class Disputed:
    """The signer's word against its own cosignature: it says that others had its key `since`.

    At `cosigned_at`, later than that, it cosigned itself the first `size` records of the holder's
    log, of which the one at `index` names exactly these bytes. `learned` is the index of the record
    by which the holder came to know of the revocation: `size` does not reach it.
    """

    kid: str
    since: datetime
    index: int
    size: int
    cosigned_at: datetime
    learned: int


def not_counted(
    ending: Ending | None,
    *,
    place: tuple[str, int, int] | None,
    index: int | None,
    cosigned: Iterable[tuple[int, datetime]],
) -> str | None:
    """Return why a signature by a key that may have ended is no evidence; None where it is.

    `place` is (stream, generation, sequence) of a message; `index` that of a record which names
    exactly these bytes, in a log of which the other agency `cosigned` sizes at times. A revoked key
    counts for what is below one that was cosigned before: the whole second counts as after. What
    does not count may still be `disputed`.
    """
    if ending is None:
        return None
    if ending.revoked is not None:
        since = ending.revoked.at
        before = max(
            (size for size, at in cosigned if at < since.replace(microsecond=0)), default=0
        )
        if index is None or index >= before:
            return (
                f"its key counts for nothing since {format_time(since)}, when it was revoked, and"
                " no checkpoint that the other agency cosigned before covers it"
            )
    elif ending.retired is not None:
        if place is None:
            return "its key was retired before"
        stream, generation, sequence = place
        if not ending.retired.reaches(stream=stream, generation=generation, sequence=sequence):
            return "its key was retired before this sequence of its stream"
    return None


def disputed(
    ending: Ending | None,
    *,
    index: int | None,
    cosigned: Iterable[tuple[int, datetime]],
    learned: int | None,
) -> Disputed | None:
    """Return what stands against a revocation that would take a signature from its holder.

    `cosigned` are sizes of the holder's log that the *signer* cosigned, and when; `learned` is the
    index of the record by which the holder learned of the revocation, None for a key of its own.
    None is returned where nothing shows that the record of these bytes was there before.
    """
    if ending is None or ending.revoked is None or index is None or learned is None:
        return None
    over = [each for each in cosigned if index < each[0] <= learned]
    if not over:
        return None
    size, at = min(over)
    return Disputed(
        kid=ending.revoked.kid,
        since=ending.revoked.at,
        index=index,
        size=size,
        cosigned_at=at,
        learned=learned,
    )
