"""The anchor: our newest checkpoint in a file outside the database, which alone shows a rollback.

A database that is set back to an earlier moment is whole in itself: every signature fits, and what
was signed since is gone without a trace. So each checkpoint is committed, then anchored (written,
synced, renamed into place), and only then does anything leave that rests on it. A store behind its
anchor went back; one whose root differs there is another history. Neither may go on by itself. Only
a note that a log key of ours signed is believed: what anybody can write accuses no store.

Costs two small syncs a sealed batch, in a thread; a crash between commit and anchor leaves the
store ahead, which the next start repairs.
"""

import asyncio
import os
from dataclasses import dataclass, replace
from datetime import UTC, datetime
from enum import StrEnum
from pathlib import Path

from schemas.canonical import b64
from schemas.checkpoint import Checkpoint, Verifier, verify_checkpoint
from schemas.errors import ConflictError, EvidenceError, UnavailableError
from services.ledger import tree
from services.ledger.records import make_record
from services.ledger.store import Store, Transaction, anchored, append, log

BYTES_MAX = 65_536


class State(StrEnum):
    """How a store stands to its anchor."""

    EMPTY = "empty"  # neither has anything
    SAME = "same"
    AHEAD = "ahead"  # sealed, and not anchored yet
    UNANCHORED = "unanchored"  # of a build that knew no anchors
    BEHIND = "behind"
    FORKED = "forked"
    MISSING = "missing"
    DAMAGED = "damaged"


ERRORS = {
    State.BEHIND: "NB-3150",
    State.FORKED: "NB-3151",
    State.MISSING: "NB-3152",
    State.DAMAGED: "NB-3153",
}


@dataclass(frozen=True, slots=True)
class Anchor:
    """One agency's anchor, a file of its own; every process of the agency sees the same.

    `log_keys` are those that may have signed its note: of today, of before a renewal, of former
    generations.
    """

    path: Path
    log_keys: tuple[Verifier, ...]

    def under(self, *keys: Verifier) -> "Anchor":
        """Return the anchor as it is believed when these may have signed it as well."""
        return replace(self, log_keys=tuple(dict.fromkeys((*keys, *self.log_keys))))

    def read(self) -> str | None:
        """Return the signed note, None when there is no file.

        Raises `UnavailableError` NB-3154 when it cannot be read; what is no note is returned.
        """
        try:
            with self.path.open(encoding="utf-8", errors="replace") as file:
                return file.read(BYTES_MAX)
        except FileNotFoundError:
            return None
        except OSError as error:
            raise UnavailableError("NB-3154", path=self.path, reason=error.strerror) from None

    def write(self, note: str) -> None:
        """Put a note in the place of the one before; after a crash one of the two is there, whole.

        Raises `UnavailableError` NB-3154 when the folder takes no file.
        """
        part = self.path.with_name(f".{self.path.name}.part")
        try:
            self.path.parent.mkdir(parents=True, exist_ok=True, mode=0o700)
            opened = os.open(part, os.O_WRONLY | os.O_CREAT | os.O_TRUNC, 0o600)
            with os.fdopen(opened, "wb") as file:
                file.write(note.encode())
                file.flush()
                os.fsync(file.fileno())
            part.replace(self.path)
            _sync_folder(self.path.parent)
        except OSError as error:
            raise UnavailableError("NB-3154", path=self.path, reason=error.strerror) from None

    def remove(self) -> None:
        """Leave no anchor: there is nothing to anchor. Raises `UnavailableError` NB-3154."""
        try:
            self.path.unlink(missing_ok=True)
        except OSError as error:
            raise UnavailableError("NB-3154", path=self.path, reason=error.strerror) from None


def _sync_folder(path: Path) -> None:
    # The new name has to survive a loss of power as well.
    descriptor = os.open(path, os.O_RDONLY)
    try:
        os.fsync(descriptor)
    finally:
        os.close(descriptor)


@dataclass(frozen=True, slots=True, kw_only=True)
class Found:
    """How a store stands to its anchor, and the two notes; `head` is the store's newest."""

    state: State
    path: Path
    note: str | None
    anchor: Checkpoint | None
    head: Checkpoint | None
    newest: str | None

    def error(self) -> EvidenceError | None:
        """Return why nothing may go on, None when it may."""
        if self.state not in ERRORS:
            return None
        return EvidenceError(
            ERRORS[self.state],
            path=self.path,
            size=self.head.size if self.head else 0,
            anchor=self.anchor.size if self.anchor else 0,
        )


async def look(tx: Transaction, anchor: Anchor) -> Found:
    """Hold a store to its anchor, while the sealer may be at work.

    It commits, anchors and then marks; so the mark is read first and the log last. Raises
    `UnavailableError` NB-3154 when the anchor cannot be read, `EvidenceError` NB-3006 when the
    stored tree lacks what its root at the anchor's size is made of.
    """
    marked = await anchored.was_marked(tx)
    note = await asyncio.to_thread(anchor.read)
    head = await log.head(tx)
    ours = Checkpoint(head.origin, head.size, head.root) if head and head.size else None
    kept = _believed(note, anchor)
    if note is None:
        state = _without(ours, marked=marked)
    elif kept is None:
        state = State.DAMAGED
    else:
        state = await _beside(tx, kept, ours)
    newest = await log.checkpoint_covering(tx, ours.size) if ours else None
    return Found(
        state=state,
        path=anchor.path,
        note=note,
        anchor=kept,
        head=ours,
        newest=newest[1] if newest else None,
    )


def _without(ours: Checkpoint | None, *, marked: bool) -> State:
    if ours is None:
        return State.EMPTY
    return State.MISSING if marked else State.UNANCHORED


async def _beside(tx: Transaction, kept: Checkpoint, ours: Checkpoint | None) -> State:
    if ours is None:
        return State.BEHIND
    name, generation = _generation(ours.origin)
    if _generation(kept.origin) != (name, generation):
        was_name, was = _generation(kept.origin)
        if was_name != name:
            return State.FORKED
        # A store comes to a later generation by adoption alone, and then its log is a new one.
        return State.AHEAD if was < generation else State.BEHIND
    if kept.size > ours.size:
        return State.BEHIND
    if await tree.root_at(tx, kept.size) != kept.root:
        return State.FORKED
    return State.SAME if kept.size == ours.size else State.AHEAD


def _believed(note: str | None, anchor: Anchor) -> Checkpoint | None:
    """Return what the note says, None for one that no log key of ours signed."""
    try:
        return None if note is None else verify_checkpoint(note, anchor.log_keys)
    except EvidenceError:
        return None


def _generation(origin: str) -> tuple[str, int]:
    """Return a log's name without its generation, and the generation; 0 for one that says none."""
    name, _, last = origin.rpartition("/")
    return (name, int(last)) if last.isascii() and last.isdigit() else (origin, 0)


async def adopt(store: Store, anchor: Anchor, *, actor: str, reason: str) -> Found:
    """Anchor the store as it is, where its anchor is gone or not ours; returns how it stood before.

    On record, with the reason: whether the store had gone back meanwhile is known to whoever has
    seen a later checkpoint alone. Raises `ConflictError` NB-3155 where nothing is wrong, NB-3156
    where the anchor shows that the store is another one.
    """
    async with store.transaction() as tx:
        found = await look(tx, anchor)
        if found.error() is None:
            raise ConflictError("NB-3155")
        if found.state not in (State.MISSING, State.DAMAGED):
            raise ConflictError("NB-3156")
        now = datetime.now(UTC)
        said: dict[str, int | str] = {"state": str(found.state)}
        if found.head is not None:
            said |= {"size": found.head.size, "root": b64(found.head.root)}
        await append(
            tx, [make_record("anchor.adopted", time=now, actor=actor, text=reason, detail=said)]
        )
    # The record first: an anchor that somebody made without a reason is what must not be.
    if found.newest is None or found.head is None:
        await asyncio.to_thread(anchor.remove)
        return found
    await asyncio.to_thread(anchor.write, found.newest)
    async with store.transaction() as tx:
        await anchored.mark(
            tx, origin=found.head.origin, size=found.head.size, now=datetime.now(UTC)
        )
    return found
