"""Have a third party witness our log: somebody who is neither of the two agencies.

Once in a while, if our log grew, its newest checkpoint and the proof that it grew out of the last
one that the witness cosigned are sent there; the cosignature that comes back is verified and kept
beside the log. No record tells of it, nothing waits for it, and a witness that is away delays
nothing: it only raises an alarm after an hour. A witness that has seen more of our log than we
have, or another one, is a witness against us: this store was rolled back or forked.
Source: https://c2sp.org/tlog-witness
"""

import asyncio
import base64
import re
import ssl
import time
from collections.abc import Sequence
from dataclasses import dataclass, field
from datetime import UTC, datetime
from functools import cached_property

import httpx
import structlog

from schemas.checkpoint import Verifier
from schemas.cosignature import Cosignature, cosignatures
from schemas.errors import EvidenceError, NoticeBusError, UnavailableError
from services.exchange.agency import Agency
from services.exchange.store import dead, heads
from services.exchange.store.heads import Kept, Own
from services.exchange.witnessed import ALONE_MAX
from services.ledger import tree

log = structlog.get_logger()

ANSWER_BYTES_MAX = 65_536

AWAY = "NB-3210"
NOT_COSIGNED = "NB-3211"
AGAINST_US = "NB-3212"
ALARMS = (AWAY, NOT_COSIGNED, AGAINST_US)

_OK, _CONFLICT, _UNPROCESSABLE = 200, 409, 422
_SIZE = re.compile(rb"(0|[1-9][0-9]{0,18})\n", re.ASCII)


@dataclass
class Witness:
    """Shows our log to the configured witness; without one it does nothing."""

    agency: Agency
    _next: float = field(default=0.0, init=False)

    async def step(self, now: datetime | None = None) -> None:
        """Show the newest checkpoint if it is time to and the log grew.

        Raises `UnavailableError` when our own store is away, never for what the witness does.
        """
        witness = self.agency.settings.witness
        if witness.verifier is None or time.monotonic() < self._next:
            return
        self._next = time.monotonic() + witness.every_seconds
        async with self.agency.store.glance() as look:
            own = await heads.own(look, witness=witness.verifier.name, peer=self.agency.peer)
        if own is not None and own.size > own.since:
            await self._show(own, witness.verifier, now or datetime.now(UTC))

    async def _show(self, own: Own, verifier: Verifier, now: datetime) -> None:
        try:
            found = await self._cosigned(own, verifier)
        except (UnavailableError, EvidenceError) as error:
            await self._failed(own, verifier, error, now)
            return
        async with self.agency.store.transaction() as tx:
            await heads.keep_cosignature(
                tx,
                own.origin,
                Kept(
                    size=own.size,
                    name=verifier.name,
                    line=found.line,
                    cosigned_at=found.at,
                    vkey=verifier.vkey(),
                ),
            )
            for code in ALARMS:
                await dead.clear_alarm(tx, code, verifier.name, now)
        log.debug("checkpoint cosigned", witness=verifier.name, size=own.size)

    async def _failed(
        self, own: Own, verifier: Verifier, error: NoticeBusError, now: datetime
    ) -> None:
        """Raise the alarm that a failure deserves; one that may pass by itself waits an hour."""
        async with self.agency.store.transaction() as tx:
            since = await heads.not_cosigned_since(tx, own.since)
            if error.code != AWAY or (since is not None and now - since >= ALONE_MAX):
                await dead.raise_alarm(tx, error.code, verifier.name, now)
        say = log.error if error.code == AGAINST_US else log.warning
        say("checkpoint not cosigned", witness=verifier.name, size=own.size, code=error.code)

    async def _cosigned(self, own: Own, verifier: Verifier) -> Cosignature:
        """Return the witness's cosignature of our newest checkpoint.

        Raises `UnavailableError` NB-3210 when it did not answer as asked, `EvidenceError` NB-3211
        for an answer that is no cosignature of its key, NB-3212 when it saw another log of ours.
        """
        if verifier.name in self._agencies():
            rule = "it has the name of one of the two agencies, and a third one has another"
            raise EvidenceError("NB-3211", name=verifier.name, rule=rule)
        old = own.since
        async with self._client() as client:
            status, content = await self._add_checkpoint(client, own, verifier, old)
            if status == _CONFLICT:
                # What it cosigned last is not what we kept: it says the size, and is asked again.
                told = _SIZE.fullmatch(content)
                if told is None:
                    raise EvidenceError("NB-3211", name=verifier.name, rule="it told no size")
                old = int(told[1])
                if old > own.size:
                    rule = f"it has seen {old} records of {own.origin}, and we have {own.size}"
                    raise EvidenceError("NB-3212", name=verifier.name, rule=rule)
                status, content = await self._add_checkpoint(client, own, verifier, old)
        if status == _CONFLICT and old == own.size and not _moved(content, old):
            # At one size the specification has it compare roots, and say so by this status.
            rule = f"of the {own.size} records of {own.origin} it has seen another root"
            raise EvidenceError("NB-3212", name=verifier.name, rule=rule)
        if status == _UNPROCESSABLE:
            rule = f"size {own.size} of {own.origin} is no growth of the {old} records it has seen"
            raise EvidenceError("NB-3212", name=verifier.name, rule=rule)
        if status >= 500 or status == _CONFLICT:
            raise UnavailableError("NB-3210", name=verifier.name, cause=f"status {status}")
        if status != _OK:
            raise EvidenceError("NB-3211", name=verifier.name, rule=f"it answered {status}")
        return _of(own.note, content, verifier)

    async def _add_checkpoint(
        self, client: httpx.AsyncClient, own: Own, verifier: Verifier, old: int
    ) -> tuple[int, bytes]:
        """Send one request of C2SP tlog-witness; return the answer's status and body."""
        proof: Sequence[bytes] = ()
        if old:
            async with self.agency.store.transaction() as tx:
                proof = await tree.consistency(tx, old, own.size)
        lines = "".join(f"{base64.b64encode(node).decode('ascii')}\n" for node in proof)
        asked = f"old {old}\n{lines}\n{own.note}".encode()
        url = f"{(self.agency.settings.witness.url or '').rstrip('/')}/add-checkpoint"
        content = b""
        try:
            # The whole exchange ends by then, however slowly the other side speaks.
            async with asyncio.timeout(self.agency.settings.witness.answer_seconds):
                async with client.stream("POST", url, content=asked) as answer:
                    async for part in answer.aiter_bytes():
                        content += part
                        if len(content) > ANSWER_BYTES_MAX:
                            rule = "its answer does not end"
                            raise EvidenceError("NB-3211", name=verifier.name, rule=rule)
                    return answer.status_code, content
        except (TimeoutError, httpx.HTTPError, ssl.SSLError) as error:
            cause = type(error).__name__
            raise UnavailableError("NB-3210", name=verifier.name, cause=cause) from error

    def _agencies(self) -> set[str]:
        """Return the names that cosignatures of the two agencies bear."""
        theirs = {each.name for each in self.agency.directory.cosigners}
        return theirs | {self.agency.ring.cosigner.name}

    def _client(self) -> httpx.AsyncClient:
        seconds = self.agency.settings.witness.answer_seconds
        return httpx.AsyncClient(verify=self._certificates, timeout=seconds)

    @cached_property
    def _certificates(self) -> ssl.SSLContext:
        """The machine's own certificates; read once, because that takes a while."""
        return ssl.create_default_context()


def _moved(content: bytes, old: int) -> bool:
    """Return whether a conflict names another size than `old`: it cosigned more meanwhile."""
    told = _SIZE.fullmatch(content)
    return told is not None and int(told[1]) != old


def _of(note: str, content: bytes, verifier: Verifier) -> Cosignature:
    """Return the cosignature by `verifier` in the lines of an answer."""
    try:
        found = cosignatures(note + content.decode("utf-8"), [verifier])
    except (EvidenceError, UnicodeDecodeError) as error:
        rule = error.sentence if isinstance(error, EvidenceError) else "it is not text"
        raise EvidenceError("NB-3211", name=verifier.name, rule=rule) from error
    if not found:
        rule = "its answer has no line of the key in NOTICEBUS_WITNESS_VKEY"
        raise EvidenceError("NB-3211", name=verifier.name, rule=rule)
    return found[-1]
