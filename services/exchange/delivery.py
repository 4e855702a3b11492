"""Take what arrives on a stream: check it, open it, and hand it to the intake or set it aside.

The order of checks is fixed: size, header, signature, attributes against the stream that was read,
duplicate, decryption, commitment, schema. What will stay wrong is set aside at once and the rest
goes on; an outage of the store raises `UnavailableError`, and then nothing was acknowledged.
"""

import asyncio
from collections.abc import Awaitable, Callable, Iterator, Mapping, Sequence
from dataclasses import dataclass
from itertools import groupby

from schemas.catalog import parse_body
from schemas.ending import refuse_ended
from schemas.envelope import Kind, Lane, expect, open_data, read, verify
from schemas.errors import EvidenceError, RejectedError
from services.bus import Entry, Verdict
from services.exchange import aside
from services.exchange.agency import Agency
from services.exchange.control import Control
from services.exchange.indexing import tag_of
from services.exchange.intake import Arrived, Intake, Opened
from services.exchange.store import incoming
from services.exchange.threads import off_the_loop

# A transaction's worth of messages; the receipts of as many fit into one control message.
CHUNK = 400


@dataclass(frozen=True, slots=True, kw_only=True)
class Prepared:
    """A chunk of entries after every check that needs no lock; `contents` by entry id."""

    arrived: Sequence[Arrived]
    contents: Mapping[str, Opened]
    unauthentic: Sequence[tuple[Entry, RejectedError]]
    refused: Sequence[tuple[Arrived, RejectedError]]
    redriven: bool


@dataclass(frozen=True, slots=True, kw_only=True)
class Delivery:
    """What the bus calls with entries: `take`, and `failed` for one that raised alone."""

    agency: Agency
    intake: Intake
    control: Control

    async def take(self, entries: Sequence[Entry]) -> list[Verdict]:
        """Take the entries of one stream; on return each is durable here, taken or set aside.

        Raises `UnavailableError` when the store is away. Any other error leaves all pending.
        """
        await self._take(entries, redriven=False)
        return [Verdict.ACKNOWLEDGE] * len(entries)

    async def redrive(self, entries: Sequence[Entry]) -> None:
        """Try the bytes of dead letters of one stream again, as if they had just arrived."""
        await self._take(entries, redriven=True)

    async def examine(self, entries: Sequence[Entry]) -> Prepared:
        """Check and open dead letters of one stream as `redrive` would; nothing is written."""
        return await self._prepare(entries, redriven=True)

    async def failed(self, entry: Entry, error: Exception) -> bool:
        """Note that an entry failed alone; True once it is set aside, its attempts used up."""
        return await aside.note_failure(self.agency, entry, error)

    async def _take(self, entries: Sequence[Entry], *, redriven: bool) -> None:
        """Take entries in chunks: while one is being committed, the next is checked and opened."""
        chunks = [entries[at : at + CHUNK] for at in range(0, len(entries), CHUNK)]
        ahead = asyncio.create_task(self._prepare(chunks[0], redriven=redriven))
        try:
            for chunk in [*chunks[1:], None]:
                prepared = await ahead
                if chunk is not None:
                    ahead = asyncio.create_task(self._prepare(chunk, redriven=redriven))
                await self._finish(prepared)
        finally:
            ahead.cancel()
            await asyncio.gather(ahead, return_exceptions=True)

    async def _prepare(self, entries: Sequence[Entry], *, redriven: bool) -> Prepared:
        """Check entries and open what is new; nothing is written."""
        arrived, unauthentic = await off_the_loop(
            self._authenticate, entries, redriven, rows=len(entries)
        )
        if any(error.code == aside.UNKNOWN_KEY for _, error in unauthentic):
            # A key that we do not know may be one that was trusted a moment ago.
            await self.agency.reload()
            arrived, unauthentic = await off_the_loop(
                self._authenticate, entries, redriven, rows=len(entries)
            )
        data = [a for a in arrived if a.envelope.attributes.lane is not Lane.CONTROL]
        opened: list[Opened] = []
        refused: list[tuple[Arrived, RejectedError]] = []
        if data:
            async with self.agency.store.glance() as look:
                known = await incoming.known(look, [a.envelope.attributes.id for a in data])
            fresh = [a for a in data if a.is_new(known.get(a.envelope.attributes.id))]
            opened, refused = await off_the_loop(self._open, fresh, rows=len(fresh))
        wrong = {message.entry.entry_id for message, _ in refused}
        return Prepared(
            arrived=[a for a in arrived if a.entry.entry_id not in wrong],
            contents={message.arrived.entry.entry_id: message for message in opened},
            unauthentic=unauthentic,
            refused=refused,
            redriven=redriven,
        )

    async def _finish(self, prepared: Prepared) -> None:
        """Make durable what was prepared: taken, refused or set aside."""
        await aside.set_aside_unauthenticated(
            self.agency, prepared.unauthentic, redriven=prepared.redriven
        )
        for message, error in prepared.refused:
            await aside.refuse(self.agency, message, error)

        async def commit(some: Sequence[Arrived]) -> None:
            await self.intake.commit(some, prepared.contents)

        for generation in sorted({a.envelope.attributes.generation for a in prepared.arrived}):
            group = [a for a in prepared.arrived if a.envelope.attributes.generation == generation]
            if group[0].envelope.attributes.lane is Lane.CONTROL:
                for some in _together(group):
                    await self._each_or_aside(some, self.control.take)
            else:
                await self._each_or_aside(group, commit)

    def _authenticate(
        self,
        entries: Sequence[Entry],
        redriven: bool,  # noqa: FBT001 - handed through a thread
    ) -> tuple[list[Arrived], list[tuple[Entry, RejectedError]]]:
        keys, endings = self.agency.directory.verify_keys, self.agency.directory.endings
        arrived: list[Arrived] = []
        refused: list[tuple[Entry, RejectedError]] = []
        for entry in entries:
            try:
                envelope = verify(read(entry.jws), keys)
                expect(envelope, stream=entry.stream, recipient=self.agency.name)
                refuse_ended(envelope, endings)
            except RejectedError as error:
                refused.append((entry, error))
            else:
                arrived.append(Arrived(entry=entry, envelope=envelope, redriven=redriven))
        return arrived, refused

    def _open(
        self, arrived: Sequence[Arrived]
    ) -> tuple[list[Opened], list[tuple[Arrived, RejectedError]]]:
        opened: list[Opened] = []
        refused: list[tuple[Arrived, RejectedError]] = []
        for message in arrived:
            try:
                opened.append(open_message(self.agency, message))
            except RejectedError as error:
                refused.append((message, error))
        return opened, refused

    async def _each_or_aside(
        self,
        messages: Sequence[Arrived],
        commit: Callable[[Sequence[Arrived]], Awaitable[None]],
    ) -> None:
        """Commit messages together; if one is refused, each alone, and that one set aside."""
        try:
            await commit(messages)
        except (RejectedError, EvidenceError) as error:
            if len(messages) == 1:
                await aside.refuse(self.agency, messages[0], error)
                return
            for message in messages:
                await self._each_or_aside([message], commit)


def _together(control: Sequence[Arrived]) -> Iterator[list[Arrived]]:
    """Split control messages, in their order, into what is taken in one transaction.

    Refusals that follow each other are; they are one a message of ours, and may be thousands.
    """
    for refusals, group in groupby(control, lambda m: m.envelope.attributes.kind is Kind.REFUSAL):
        if refusals:
            yield list(group)
        else:
            yield from ([message] for message in group)


def open_message(agency: Agency, arrived: Arrived) -> Opened:
    """Decrypt a verified message, check its commitment and read its content by its schema.

    Raises `RejectedError` with the code of the first check that fails.
    """
    attributes = arrived.envelope.attributes
    content = open_data(arrived.envelope, agency.ring.decryption)
    body = parse_body(attributes.kind, attributes.version, content.body)
    tag = tag_of(attributes.kind, content.body, agency.ring.index_key)
    # Without an index key of our own we cannot tell, and record no tag.
    if tag is not None and attributes.casetag is not None and attributes.casetag != tag:
        raise RejectedError("NB-3220", message_id=attributes.id)
    return Opened(arrived=arrived, salt=content.salt, plain=content.body, body=body, casetag=tag)
