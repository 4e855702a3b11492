"""What an archive file holds, line by line, and that it proves itself without a store.

The file is the log from its first record to a checkpoint, with every checkpoint on the way. A line
has a record's bytes, or the leaf hash alone where an earlier archive has them. Beside a record
stands what moved with it: the openings of its names (`opened`, there if the record left the store)
and the message that it tells of (exact bytes, content and salt). So records lead to the signed
root, names and content fit their commitments, and bytes have the hash that the record names.
"""

from collections.abc import Iterator, Mapping, Sequence
from dataclasses import dataclass
from pathlib import Path
from typing import Any

from schemas.canonical import b64, parse, unb64
from schemas.checkpoint import Verifier, verify_checkpoint
from schemas.envelope import SALT_BYTES, Attributes, commitment, read
from schemas.errors import EvidenceError, RejectedError
from schemas.proof import append as grow
from schemas.proof import leaf_hash, root_of
from services.backup import container
from services.backup.container import Block, Content, Signed
from services.backup.snapshot import Progress, held, signers
from services.keys import KeyRing
from services.ledger.records import opening_holds, read_record


@dataclass(frozen=True, slots=True, kw_only=True)
class Moved:
    """One message in an archive, with what its bytes say of themselves."""

    attributes: Attributes
    envelope: bytes
    envelope_hash: bytes
    salt: bytes
    body: bytes


@dataclass(frozen=True, slots=True, kw_only=True)
class Line:
    """One place of the log: its bytes, None where the leaf hash alone is here.

    `opened` is there, if empty, where the record moved to this file.
    """

    index: int
    record: bytes | None
    opened: Mapping[str, Any] | None
    message: Moved | None


@dataclass(frozen=True, slots=True, kw_only=True)
class Verified:
    """What an archive holds, read to its end: nothing in it differs.

    `records` moved to it; `leaves` are known by their hashes alone, their bytes are elsewhere.
    """

    path: Path
    origin: str
    size: int
    root: bytes
    checkpoints: int
    messages: int
    records: int
    leaves: int
    digest: bytes


@dataclass(slots=True)
class _Walk:
    """A log on its way from its first record; `proven` of them are under a signed checkpoint."""

    path: Path
    log_keys: Sequence[Verifier]
    frontier: list[bytes]
    size: int = 0
    proven: int = 0
    checkpoints: int = 0
    messages: int = 0
    records: int = 0
    leaves: int = 0
    origin: str = ""
    root: bytes = b""

    def take(self, text: bytes) -> Line:
        """Check one line and return what it says."""
        try:
            said = parse(text)
            line, note = _line(said, self.size), said.get("checkpoint")
            leaf = unb64(said["leaf"]) if line.record is None else leaf_hash(line.record)
        except (RejectedError, KeyError, TypeError, AttributeError):
            raise self._differs("cannot be read") from None
        self.frontier = grow(self.frontier, self.size, [leaf])
        self.size += 1
        if line.record is None:
            self.leaves += 1
        else:
            self._hold(line, read_record(line.record, index=line.index))
        if note is not None:
            self._prove(note)
        return line

    def finish(self) -> None:
        """Raise unless a checkpoint stands at the very end."""
        if self.proven != self.size or not self.size:
            raise EvidenceError("NB-3061", path=self.path, rule="no checkpoint is at its end")

    def _hold(self, line: Line, said: Mapping[str, Any]) -> None:
        """Hold names to their commitments, a message to the hash and commitment of its record."""
        if line.opened is not None:
            self.records += 1
            if not opening_holds(said, dict(line.opened)):
                raise self._differs("does not commit to the names beside it")
        if line.message is None:
            return
        self.messages += 1
        named = (said.get("message_id"), said.get("envelope"), said.get("commitment"))
        if named != (
            str(line.message.attributes.id),
            b64(line.message.envelope_hash),
            b64(commitment(line.message.salt, line.message.body)),
        ):
            raise self._differs("is not of the message beside it")

    def _prove(self, note: str) -> None:
        checkpoint = verify_checkpoint(note, self.log_keys)
        root = root_of(self.frontier, self.size)
        if (checkpoint.size, checkpoint.root) != (self.size, root):
            raise EvidenceError("NB-3066", path=self.path, size=self.size, since=self.proven)
        self.proven, self.origin, self.root = self.size, checkpoint.origin, root
        self.checkpoints += 1

    def _differs(self, rule: str) -> EvidenceError:
        return EvidenceError("NB-3061", path=self.path, rule=f"record {self.size - 1} {rule}")


def verify_archive(
    path: Path,
    ring: KeyRing,
    *,
    log_keys: Sequence[Verifier],
    progress: Progress | None = None,
) -> Verified:
    """Read a whole archive without a store: records, roots, checkpoints, messages, signature.

    Raises what `container.read` and `snapshot.held` raise, `EvidenceError` NB-3061 for a record or
    message that differs, NB-3066 where records do not lead to their checkpoint, and what
    `verify_checkpoint` raises for one that `log_keys` did not sign.
    """
    held(path, ring, expected=Content.ARCHIVE)
    walk = _Walk(path, log_keys, [])
    digest = b""
    for found in _walked(path, ring, walk):
        if isinstance(found, Signed):
            digest = found.digest
        if progress is not None:
            progress(walk.size)
    return Verified(
        path=path,
        origin=walk.origin,
        size=walk.size,
        root=walk.root,
        checkpoints=walk.checkpoints,
        messages=walk.messages,
        records=walk.records,
        leaves=walk.leaves,
        digest=digest,
    )


def moved(path: Path, ring: KeyRing, *, log_keys: Sequence[Verifier]) -> Iterator[Line]:
    """Yield the lines of which something moved to an archive, in the order of the log.

    Each is held to its record; the log's root and the file's signature are known at the end alone,
    so that who acts on them verifies first.
    """
    for found in _walked(path, ring, _Walk(path, log_keys, [])):
        if isinstance(found, Line) and (found.opened is not None or found.message is not None):
            yield found


def messages(path: Path, ring: KeyRing, *, log_keys: Sequence[Verifier]) -> Iterator[Moved]:
    """Yield the messages of an archive, in the order of their records; as `moved` does."""
    for line in moved(path, ring, log_keys=log_keys):
        if line.message is not None:
            yield line.message


def _walked(path: Path, ring: KeyRing, walk: _Walk) -> Iterator[Line | Signed]:
    rest = b""
    for event in container.read(
        path, keys=ring.opening_files(), signers=signers(ring), expected=Content.ARCHIVE
    ):
        if isinstance(event, Block):
            *lines, rest = (rest + event.data).split(b"\n")
            for line in lines:
                yield walk.take(line)
        elif isinstance(event, Signed):
            walk.finish()
            yield event


def _line(said: Mapping[str, Any], index: int) -> Line:
    told = said.get("message")
    record = None if "leaf" in said else unb64(said["record"])
    opened = said.get("opened")
    if not isinstance(opened, dict | None) or (record is None and (told or opened is not None)):
        raise RejectedError("NB-2006", field="opened", rule="cannot be read")
    return Line(
        index=index, record=record, opened=opened, message=None if told is None else _message(told)
    )


def _message(told: Mapping[str, str]) -> Moved:
    unverified = read(told["envelope"].encode("ascii"))
    attributes = unverified.claims
    if attributes is None or len(salt := unb64(told["salt"])) != SALT_BYTES:
        raise RejectedError("NB-2006", field="(envelope)", rule="cannot be read")
    return Moved(
        attributes=attributes,
        envelope=unverified.raw,
        envelope_hash=unverified.hash,
        salt=salt,
        body=unb64(told["body"]),
    )
