"""Connections to PostgreSQL: pooled transactions, sessions of one's own, and what ends a wait.

Every transaction ends: the server gives up statements, locks and idle transactions after a time,
and if the server itself falls silent, the connection is cut from our side. An outage surfaces as
`UnavailableError` NB-5001 and costs nothing but the transaction; the next one connects again. When
it strikes during a commit, the outcome is unknown: whoever must know reads it back.
"""

import asyncio
import os
import select
import socket
from collections import deque
from collections.abc import AsyncIterator, Awaitable, Callable, Iterator, Sequence
from contextlib import AbstractAsyncContextManager, asynccontextmanager, contextmanager, suppress
from typing import Any, Protocol, Self, TypeAlias

from psycopg import (
    AsyncConnection,
    AsyncCursor,
    InterfaceError,
    OperationalError,
    ProgrammingError,
    errors,
    sql,
)
from psycopg.conninfo import conninfo_to_dict, make_conninfo
from psycopg.pq import PipelineStatus, TransactionStatus
from psycopg.rows import Row, TupleRow

from schemas.errors import EvidenceError, RejectedError, UnavailableError

Transaction: TypeAlias = AsyncConnection[TupleRow]
# What is done with each new connection before anybody uses it.
Prepare: TypeAlias = Callable[[Transaction], Awaitable[None]]

CONNECT_SECONDS = 5
SLOT_WAIT_SECONDS = 10.0
TRANSACTION_SECONDS = 60.0
HEARTBEAT_SECONDS = 30.0
REASON_CHARACTERS_MAX = 200
# What a store raises that was restored and waits for a person (migration 0005).
RESTORED = "55NB1"

_UNFINISHED = (TransactionStatus.INTRANS, TransactionStatus.INERROR)

# Given up by the server, in milliseconds; keepalives in seconds, so that the locks of a machine
# that lost its power are freed.
_SERVER_SETTINGS = {
    "statement_timeout": 30_000,
    "lock_timeout": 10_000,
    "idle_in_transaction_session_timeout": 60_000,
    "tcp_keepalives_idle": 15,
    "tcp_keepalives_interval": 5,
    "tcp_keepalives_count": 3,
    "jit": "off",
    "timezone": "UTC",
}
_CLIENT_SETTINGS = {
    "connect_timeout": CONNECT_SECONDS,
    "keepalives_idle": 15,
    "keepalives_interval": 5,
    "keepalives_count": 3,
    "tcp_user_timeout": 20_000,
    "application_name": "noticebus",
}


@contextmanager
def border() -> Iterator[None]:
    """Turn an outage of the store into `UnavailableError`: NB-5001, NB-5010 before migration.

    A store that was restored and is not adopted raises `EvidenceError` NB-3060 when it is changed.
    """
    try:
        yield
    except (errors.UndefinedTable, errors.UndefinedColumn) as error:
        raise UnavailableError("NB-5010") from error
    except (OperationalError, InterfaceError, errors.ReadOnlySqlTransaction) as error:
        if error.sqlstate == RESTORED:
            raise EvidenceError("NB-3060") from error
        raise UnavailableError("NB-5001", reason=_reason(error)) from error


def connection_settings(url: str) -> dict[str, Any]:
    """Return connection arguments for `url` with our timeouts; what the address says goes first.

    Raises `RejectedError` NB-5012 for what is no address.
    """
    try:
        given = conninfo_to_dict(url)
    except ProgrammingError:
        # The driver's words repeat the address, and with it the password.
        raise RejectedError("NB-5012") from None
    ours = " ".join(f"-c {name}={value}" for name, value in _SERVER_SETTINGS.items())
    options = " ".join(filter(None, (ours, str(given.pop("options", "") or ""))))
    return {**_CLIENT_SETTINGS, **given, "options": options}


class Reading(Protocol):
    """Where state is read: the store as it stands, or as it was known at some moment."""

    def transaction(self) -> AbstractAsyncContextManager[Transaction]:
        """Give out a transaction to read in."""
        ...


class Session:
    """A connection outside the pool, for what lives as long as a connection: locks, LISTEN."""

    def __init__(self, connection: Transaction) -> None:
        self._connection = connection
        self._heard: deque[str] = deque()
        # Psycopg reads notifications on the side whenever a statement waits for its answer.
        connection.add_notify_handler(lambda notification: self._heard.append(notification.channel))

    @asynccontextmanager
    async def transaction(
        self, *, seconds: float = TRANSACTION_SECONDS
    ) -> AsyncIterator[Transaction]:
        """Run one transaction on this connection; committed at the end, rolled back on an error."""
        with border(), _deadline(self._connection, seconds):
            async with self._connection.transaction():
                yield self._connection

    @asynccontextmanager
    async def pipelined(
        self, *, seconds: float = TRANSACTION_SECONDS
    ) -> AsyncIterator[Transaction]:
        """Run one transaction as `Store.pipelined` does, on this connection."""
        with border(), _deadline(self._connection, seconds):
            async with _pipelined(self._connection):
                yield self._connection

    @asynccontextmanager
    async def glance(self) -> AsyncIterator[Transaction]:
        """Run single statements on this connection, each a transaction of its own."""
        with border(), _deadline(self._connection, TRANSACTION_SECONDS):
            yield self._connection

    async def try_lock(self, key: int) -> bool:
        """Take an advisory lock for as long as this session lives; False if another holds it."""
        with border(), _deadline(self._connection, TRANSACTION_SECONDS):
            cursor = await self._connection.execute("SELECT pg_try_advisory_lock(%s)", [key])
            row = await cursor.fetchone()
        return row is not None and bool(row[0])

    async def unlock(self, key: int) -> None:
        """Give an advisory lock back now."""
        with border(), _deadline(self._connection, CONNECT_SECONDS):
            await self._connection.execute("SELECT pg_advisory_unlock(%s)", [key])

    async def listen(self, channels: Sequence[str]) -> None:
        """Hear notifications on these channels from now on."""
        with border(), _deadline(self._connection, TRANSACTION_SECONDS):
            for channel in channels:
                await self._connection.execute(sql.SQL("LISTEN {}").format(sql.Identifier(channel)))

    async def heard(self, wake: asyncio.Event, *, seconds: float) -> list[str]:
        """Wait for a notification, for `wake`, or for `seconds`; clears `wake`.

        Returns the channels heard, each once, in order. Raises `UnavailableError` when the
        connection has ended.
        """
        if not self._heard:
            loop = asyncio.get_running_loop()
            with border():
                descriptor = self._connection.fileno()
            # Psycopg removes its own watch on the descriptor after each statement.
            loop.add_reader(descriptor, wake.set)
            try:
                with suppress(TimeoutError):
                    async with asyncio.timeout(seconds):
                        await wake.wait()
            finally:
                loop.remove_reader(descriptor)
        wake.clear()
        with border():
            self._connection.pgconn.consume_input()
            while (notification := self._connection.pgconn.notifies()) is not None:
                self._heard.append(notification.relname.decode())
        channels = list(dict.fromkeys(self._heard))
        self._heard.clear()
        return channels

    async def check(self) -> None:
        """Ask the server for a sign of life. Raises `UnavailableError` without one."""
        with border(), _deadline(self._connection, CONNECT_SECONDS):
            await self._connection.execute("SELECT 1")


class Store:
    """One agency's database. `open` it once for each process, and `close` it.

    Keeps the connections that were in use and gives them out again. A pool that connects in the
    background would make callers wait after an outage and forget its reason; here the caller
    connects, fails at once and knows why, and the first one after the outage is served.
    """

    def __init__(
        self, settings: dict[str, Any], *, pool_max: int, prepare: Prepare | None = None
    ) -> None:
        self._settings = settings
        self._prepare = prepare
        self._pool_max = pool_max
        self._slots = asyncio.Semaphore(pool_max)
        self._idle: list[Transaction] = []
        self._closed = False

    @classmethod
    async def open(cls, url: str, *, pool_max: int = 8, prepare: Prepare | None = None) -> Self:
        """Connect to the database at `url`; at most `pool_max` transactions run side by side.

        Raises `UnavailableError` when it does not answer, `RejectedError` for what is no address,
        and what `prepare` raises.
        """
        store = cls(connection_settings(url), pool_max=pool_max, prepare=prepare)
        with border():
            store._idle.append(await store._connect())
        return store

    @property
    def address(self) -> str | None:
        """Where another process finds the same; None where connections are prepared first."""
        return None if self._prepare is not None else make_conninfo(**self._settings)

    async def close(self) -> None:
        """Close all idle connections; those in use close when they are given back."""
        self._closed = True
        while self._idle:
            await self._idle.pop().close()

    async def __aenter__(self) -> Self:
        return self

    async def __aexit__(self, *exc: object) -> None:
        await self.close()

    @asynccontextmanager
    async def transaction(
        self, *, seconds: float = TRANSACTION_SECONDS
    ) -> AsyncIterator[Transaction]:
        """Run one transaction: committed at the end, rolled back on any error.

        Raises `UnavailableError` when the store is away or took longer than `seconds`; if that
        happened while committing, the outcome is unknown.
        """
        with border():
            async with self._borrow() as connection:
                with _deadline(connection, seconds):
                    async with connection.transaction():
                        yield connection

    @asynccontextmanager
    async def pipelined(
        self, *, seconds: float = TRANSACTION_SECONDS
    ) -> AsyncIterator[Transaction]:
        """Run one transaction in which no statement waits for the one before it.

        What is written goes along with the next question, or with the commit; `together` asks
        several things in one round trip. So a statement that fails may raise later, at the end at
        the latest, and a row count is not known before rows were fetched. Else as `transaction`.
        """
        with border():
            async with self._borrow() as connection:
                with _deadline(connection, seconds):
                    async with _pipelined(connection):
                        yield connection

    @asynccontextmanager
    async def glance(self) -> AsyncIterator[Transaction]:
        """Run single statements, each a transaction of its own; for one quick look.

        Raises `UnavailableError` as `transaction` does.
        """
        with border():
            async with self._borrow() as connection:
                with _deadline(connection, TRANSACTION_SECONDS):
                    yield connection

    @asynccontextmanager
    async def _borrow(self) -> AsyncIterator[Transaction]:
        """Give out a connection that was alive a moment ago, a new one if there is none."""
        try:
            async with asyncio.timeout(SLOT_WAIT_SECONDS):
                await self._slots.acquire()
        except TimeoutError:
            reason = f"all {self._pool_max} connections are in use"
            raise UnavailableError("NB-5001", reason=reason) from None
        try:
            connection = await self._idle_one() or await self._connect()
            try:
                yield connection
            finally:
                if self._closed or not _is_idle(connection):
                    await connection.close()
                else:
                    self._idle.append(connection)
        finally:
            self._slots.release()

    async def _idle_one(self) -> Transaction | None:
        while self._idle:
            connection = self._idle.pop()
            if _is_idle(connection):
                return connection
            await connection.close()
        return None

    async def _connect(self) -> Transaction:
        # Transactions are begun by name, so that none is left open by a statement on the side.
        connection = await AsyncConnection.connect(
            **self._settings, autocommit=True, cursor_factory=_Patient
        )
        if self._prepare is not None:
            try:
                await self._prepare(connection)
            except BaseException:
                await connection.close()
                raise
        return connection

    @asynccontextmanager
    async def session(self) -> AsyncIterator[Session]:
        """Open a connection of one's own; its locks and LISTENs end with it."""
        with border():
            connection = await self._connect()
        try:
            yield Session(connection)
        finally:
            await connection.close()

    @asynccontextmanager
    async def holding(self, key: int) -> AsyncIterator[tuple[bool, Session]]:
        """Hold an advisory lock while the block runs; False if another session has it.

        It is given back before the session ends, because that end is noticed a moment later:
        whoever comes next finds it free.
        """
        async with self.session() as session:
            ours = await session.try_lock(key)
            try:
                yield ours, session
            finally:
                if ours:
                    # If the store is away, the lock has gone with the session.
                    with suppress(UnavailableError):
                        await session.unlock(key)

    async def listen(self, channels: Sequence[str], stop: asyncio.Event) -> AsyncIterator[str]:
        """Yield the name of each channel that was notified, until `stop`.

        Begins with every channel once, because notifications from before are lost. Raises
        `UnavailableError` when the connection ends: listen again.
        """
        wake = asyncio.Event()
        stopping = asyncio.create_task(stop.wait())
        stopping.add_done_callback(lambda _: wake.set())
        try:
            async with self.session() as session:
                await session.listen(channels)
                for channel in channels:
                    yield channel
                while not stop.is_set():
                    heard = await session.heard(wake, seconds=HEARTBEAT_SECONDS)
                    for channel in heard:
                        yield channel
                    if not heard:
                        await session.check()
        finally:
            stopping.cancel()


class _Patient(AsyncCursor[Row]):
    """Lets those who ask along with it (`together`) send their statements before it waits."""

    async def fetchone(self) -> Row | None:
        await self._let_others_ask()
        return await super().fetchone()

    async def fetchall(self) -> list[Row]:
        await self._let_others_ask()
        return await super().fetchall()

    @property
    def rowcount(self) -> int:
        """How many rows the last statement found or changed; in a pipeline once it was fetched."""
        if self.pgresult is None and self._pipelined:
            raise ProgrammingError("in a pipeline rows are counted by fetching them")
        return super().rowcount

    async def _let_others_ask(self) -> None:
        if self._pipelined:
            # Twice: some of those who ask along with it ask several things together themselves.
            await asyncio.sleep(0)
            await asyncio.sleep(0)

    @property
    def _pipelined(self) -> bool:
        return self.connection.pgconn.pipeline_status != PipelineStatus.OFF


@asynccontextmanager
async def _pipelined(connection: Transaction) -> AsyncIterator[None]:
    # Psycopg's own transactions would wait after BEGIN and before COMMIT.
    try:
        async with connection.pipeline():
            await connection.execute("BEGIN")
            yield
            committed = await connection.execute("COMMIT")
    except BaseException:
        if not connection.closed and connection.info.transaction_status in _UNFINISHED:
            # If the store is away, the transaction has gone with the connection.
            with suppress(OperationalError, InterfaceError):
                await connection.rollback()
        raise
    if committed.statusmessage != "COMMIT":
        # A failure that somebody caught: PostgreSQL answers such a COMMIT by rolling back.
        raise OperationalError("the transaction had failed before its commit")


@contextmanager
def _deadline(connection: Transaction, seconds: float) -> Iterator[None]:
    """Cut the connection after `seconds`: a silent server becomes an error instead of a wait."""
    timer = asyncio.get_running_loop().call_later(seconds, _cut, connection)
    try:
        yield
    finally:
        timer.cancel()


def _cut(connection: Transaction) -> None:
    # Cancelling would not do: psycopg then waits for the server's consent.
    with (
        suppress(OperationalError, OSError),
        socket.socket(fileno=os.dup(connection.fileno())) as peer,
    ):
        peer.shutdown(socket.SHUT_RDWR)


def _is_idle(connection: Transaction) -> bool:
    """Tell whether a connection is outside a transaction, and the server has not ended it."""
    if connection.closed or connection.info.transaction_status != TransactionStatus.IDLE:
        return False
    # An idle connection has nothing to say, except that it ends.
    poll = select.poll()
    poll.register(connection.fileno(), select.POLLIN)
    return not poll.poll(0)


def _reason(error: Exception) -> str:
    """Return the first line of an error without its detail, which may hold values."""
    primary = error.diag.message_primary if isinstance(error, OperationalError) else None
    text = primary or str(error) or type(error).__name__
    return text.splitlines()[0][:REASON_CHARACTERS_MAX]
