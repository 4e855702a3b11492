"""Connections to Redis whose every wait ends, and one kind of error for all that can go wrong.

No command is tried again by the driver: a lost answer to XADD would become a second entry.
"""

from collections.abc import AsyncIterator, Iterator
from contextlib import asynccontextmanager, contextmanager

from redis.asyncio import Redis
from redis.asyncio.retry import Retry
from redis.backoff import NoBackoff
from redis.exceptions import RedisError, ResponseError

from schemas.errors import UnavailableError
from services.settings import BusSettings


class GroupGoneError(Exception):
    """The stream or its consumer group no longer exists: make it again."""


@asynccontextmanager
async def connected(url: str, settings: BusSettings) -> "AsyncIterator[Redis]":
    """Yield a client of its own connections; it connects when it is first used."""
    client = Redis.from_url(
        url,
        socket_connect_timeout=settings.connect_seconds,
        socket_timeout=settings.answer_seconds,
        retry=Retry(NoBackoff(), 0),
        retry_on_error=[],
    )
    try:
        yield client
    finally:
        await client.aclose()


@contextmanager
def speaking() -> Iterator[None]:
    """Turn the driver's errors into ours.

    Raises `GroupGoneError`, or `UnavailableError` (NB-5002) with a reason that holds no argument
    and no password.
    """
    try:
        yield
    except ResponseError as error:
        # The first word is the kind (NOPERM, MISCONF, OOM); the rest may quote what we sent.
        kind = str(error).partition(" ")[0]
        if kind in {"NOGROUP", "UNBLOCKED"} or "no such key" in str(error):
            raise GroupGoneError(kind) from error
        raise UnavailableError("NB-5002", reason=f"it refuses: {kind}") from error
    except (RedisError, OSError, TimeoutError) as error:
        raise UnavailableError("NB-5002", reason=type(error).__name__) from error
