"""Take what arrives on a stream: check it, open it, and hand it to the intake or set it aside.

The order of checks is fixed: size, header, signature, attributes against the stream that was read,
duplicate, decryption, commitment, schema. What will stay wrong is set aside at once and the rest
goes on; an outage of the store raises `UnavailableError`, and then nothing was acknowledged.
"""

import asyncio
from collections.abc import Awaitable, Callable, Sequence
from dataclasses import dataclass

from schemas.catalog import parse_body
from schemas.envelope import Lane, expect, open_data, read, verify
from schemas.errors import EvidenceError, RejectedError
from services.bus import Entry, Verdict
from services.exchange import aside
from services.exchange.agency import Agency
from services.exchange.control import Control
from services.exchange.intake import Arrived, Intake, Opened
from services.exchange.store import incoming


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

    async def redrive(self, entry: Entry) -> None:
        """Try the bytes of a dead letter once more, as if they had just arrived."""
        await self._take([entry], redriven=True)

    async def failed(self, entry: Entry, error: Exception) -> bool:
        """Note that an entry failed alone; True once it is set aside, its attempts used up."""
        return await aside.note_failure(self.agency, entry, error)

    async def _take(self, entries: Sequence[Entry], *, redriven: bool) -> None:
        arrived, refused = await asyncio.to_thread(self._authenticate, entries, redriven)
        if any(error.code == aside.UNKNOWN_KEY for _, error in refused):
            # A key that we do not know may be one that was trusted a moment ago.
            await self.agency.reload()
            arrived, refused = await asyncio.to_thread(self._authenticate, entries, redriven)
        await aside.set_aside_unauthenticated(self.agency, refused)
        for generation in sorted({a.envelope.attributes.generation for a in arrived}):
            await self._take_authentic(
                [a for a in arrived if a.envelope.attributes.generation == generation]
            )

    def _authenticate(
        self,
        entries: Sequence[Entry],
        redriven: bool,  # noqa: FBT001 - handed through a thread
    ) -> tuple[list[Arrived], list[tuple[Entry, RejectedError]]]:
        keys = self.agency.directory.verify_keys
        arrived: list[Arrived] = []
        refused: list[tuple[Entry, RejectedError]] = []
        for entry in entries:
            try:
                envelope = verify(read(entry.jws), keys)
                expect(envelope, stream=entry.stream, recipient=self.agency.name)
            except RejectedError as error:
                refused.append((entry, error))
            else:
                arrived.append(Arrived(entry=entry, envelope=envelope, redriven=redriven))
        return arrived, refused

    async def _take_authentic(self, arrived: Sequence[Arrived]) -> None:
        if arrived[0].envelope.attributes.lane is Lane.CONTROL:
            for message in arrived:
                await self._each_or_aside([message], self.control.take)
            return
        async with self.agency.store.transaction() as tx:
            known = await incoming.known(tx, [a.envelope.attributes.id for a in arrived])
        fresh = [a for a in arrived if a.is_new(known.get(a.envelope.attributes.id))]
        opened, refused = await asyncio.to_thread(self._open, fresh)
        for message, error in refused:
            await aside.refuse(self.agency, message, error)
        contents = {message.arrived.entry.entry_id: message for message in opened}
        wrong = {message.entry.entry_id for message, _ in refused}
        rest = [a for a in arrived if a.entry.entry_id not in wrong]

        async def commit(some: Sequence[Arrived]) -> None:
            await self.intake.commit(some, contents)

        if rest:
            await self._each_or_aside(rest, commit)

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


def open_message(agency: Agency, arrived: Arrived) -> Opened:
    """Decrypt a verified message, check its commitment and read its content by its schema.

    Raises `RejectedError` with the code of the first check that fails.
    """
    attributes = arrived.envelope.attributes
    content = open_data(arrived.envelope, agency.ring.decryption)
    body = parse_body(attributes.kind, attributes.version, content.body)
    return Opened(arrived=arrived, salt=content.salt, plain=content.body, body=body)
