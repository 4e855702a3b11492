"""Messages as a Redis stream holds them: verified and opened as delivery does, and no group moves.

A stream proves nothing about what was taken: order, time and whether a message took effect are
those of the record here, and only the bytes come from the stream. So what the store lost can be
replayed as long as a stream still has it, and what was never taken is shown and stays blocked.
"""

from collections.abc import AsyncGenerator, Mapping, Sequence
from dataclasses import dataclass
from typing import Self

from schemas.envelope import CONTROL_KINDS, Attributes, VerifyKey, expect, open_data, read, verify
from schemas.errors import EvidenceError, NotFoundError, RejectedError
from services.bus import Entry, History
from services.exchange.agency import Agency, read_directory
from services.exchange.recorded import Direction, Recorded
from services.exchange.threads import off_the_loop
from services.ledger.store import Transaction
from services.replay.places import STREAM as OF_REPLAYS
from services.replay.selection import Selection
from services.replay.sources import NOT_TAKEN, Batch, Progress, Sourced
from services.replay.store import messages
from services.replay.store.messages import Cursor, Placed, Stored


@dataclass(frozen=True, slots=True, kw_only=True)
class StreamSource:
    """One stream, read through `history` for `agency`; made by `open`."""

    agency: Agency
    history: History
    stream: str
    keys: Mapping[str, VerifyKey]
    reading: Progress | None = None

    @classmethod
    async def open(
        cls,
        agency: Agency,
        history: History,
        stream: str,
        *,
        reading: Progress | None = None,
    ) -> Self:
        """Return a stream as a source; keys of both agencies verify what it holds.

        `reading` is told how many entries were looked at, before the first message comes.
        """
        own = await read_directory(agency.store, agency.name)
        keys = {**own.verify_keys, **agency.directory.verify_keys}
        return cls(agency=agency, history=history, stream=stream, keys=keys, reading=reading)

    def __str__(self) -> str:
        return f"stream:{self.stream}"

    async def prepare(self, tx: Transaction, selection: Selection) -> None:
        """Note what the stream holds of the selection's sequences.

        Raises `NotFoundError` NB-6032 for a stream that nobody knows, `EvidenceError` NB-6041 for
        an entry that nobody here signed for this stream.
        """
        await messages.keep_entries(tx, [])
        known = self.stream in await messages.streams(tx)
        if not known and await self.history.last_id(self.stream) is None:
            raise NotFoundError("NB-6032", stream=self.stream)
        read_ = 0
        async for entries in self.history.entries(self.stream):
            claimed = await off_the_loop(self._claims, entries, selection, rows=len(entries))
            await messages.keep_entries(tx, claimed)
            read_ += len(entries)
            if self.reading is not None:
                self.reading(read_)

    async def batches(
        self, tx: Transaction, selection: Selection, *, after: Cursor | None, batch_max: int
    ) -> AsyncGenerator[Batch, None]:
        """Yield messages with the bytes that the stream has of them."""
        async for placed, cursor in messages.recorded(
            tx, selection, after=after, batch_max=batch_max, entries=True
        ):
            # What a run began with may have left the stream since.
            ids = [each.entry_id for each in placed if each.entry_id is not None]
            held = dict(zip(ids, await self.history.read(self.stream, ids), strict=True))
            entries = [held.get(each.entry_id or "") for each in placed]
            sent = [p.message.message_id for p in placed if p.message.direction is Direction.SENT]
            stored = await messages.stored(tx, sent) if sent else {}
            opened = await off_the_loop(self._open, placed, entries, stored, rows=len(placed))
            yield Batch(opened, cursor)

    def _claims(self, entries: Sequence[Entry], selection: Selection) -> list[tuple[Recorded, str]]:
        """Return what entries say of themselves, once their signature holds."""
        found: list[tuple[Recorded, str]] = []
        for entry in entries:
            try:
                unverified = read(entry.jws)
                claims = unverified.claims
                if claims is not None and _is_outside(claims, selection):
                    continue
                envelope = verify(unverified, self.keys)
                attributes = envelope.attributes
                expect(
                    envelope,
                    stream=attributes.stream if self._of_replays else self.stream,
                    recipient=attributes.recipient,
                )
            except RejectedError as error:
                raise EvidenceError(
                    "NB-6041", entry_id=entry.entry_id, stream=self.stream, cause=error.code
                ) from error
            if attributes.kind in CONTROL_KINDS:
                continue
            ours = attributes.sender == self.agency.name
            message = Recorded(
                message_id=attributes.id,
                direction=Direction.SENT if ours else Direction.RECEIVED,
                kind=attributes.kind,
                notice_id=attributes.subject,
                revision=attributes.revision,
                stream=attributes.stream,
                generation=attributes.generation,
                sequence=attributes.sequence,
                envelope_hash=envelope.hash,
                at=attributes.time,
            )
            found.append((message, entry.entry_id))
        return found

    def _open(
        self,
        placed: Sequence[Placed],
        entries: Sequence[Entry | None],
        stored: Mapping[object, Stored],
    ) -> list[Sourced]:
        return [
            self._opened(each, entry, stored) for each, entry in zip(placed, entries, strict=True)
        ]

    def _opened(
        self, placed: Placed, entry: Entry | None, stored: Mapping[object, Stored]
    ) -> Sourced:
        message = placed.message
        jws = None if entry is None else entry.jws
        salt = body = cause = None
        if placed.state is None:
            cause = "NB-6035"
        elif placed.state in NOT_TAKEN:
            cause = "NB-6034"
        elif jws is None:
            cause = "NB-6021"
        elif message.direction is Direction.SENT:
            # It was encrypted to the other side: what it says, only our store knows.
            kept = stored[message.message_id]
            salt, body = kept.salt, kept.body
            if not (body and salt):
                cause = "NB-6122" if kept.away else "NB-6020" if kept.erased else "NB-6021"
        else:
            try:
                content = open_data(verify(read(jws), self.keys), self.agency.ring.decryption)
            except RejectedError as error:
                cause = error.code
            else:
                salt, body = content.salt, content.body
        return Sourced(message=message, envelope=jws, salt=salt, body=body, cause=cause)

    @property
    def _of_replays(self) -> bool:
        return OF_REPLAYS.fullmatch(self.stream) is not None


def _is_outside(claims: Attributes, selection: Selection) -> bool:
    """Tell whether an entry lies outside the sequences that were asked for."""
    return bool(selection.sequences) and not any(
        each.stream == claims.stream and each.first <= claims.sequence <= each.last
        for each in selection.sequences
    )
