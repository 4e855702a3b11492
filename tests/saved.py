"""What two agencies did once, to be gone on with any number of times from where it ended."""

import shutil
from collections.abc import AsyncIterator, Awaitable, Callable, Mapping
from contextlib import asynccontextmanager
from dataclasses import dataclass
from pathlib import Path
from typing import Any, TypeVar

from redis.asyncio import Redis

from tests.agencies import Pair, opened_again
from tests.databases import Databases

T = TypeVar("T")
Fresh = Callable[[str], str]


@dataclass(frozen=True, slots=True)
class Saved:
    """Where two agencies ended, at rest: their home, databases and streams."""

    home: Path
    urls: Mapping[str, str]
    streams: Mapping[bytes, bytes]


@dataclass(frozen=True, slots=True)
class Keeper:
    """Keeps what two agencies did, and opens copies of it."""

    databases: Databases
    folder: Path

    async def keep(
        self, live: Callable[[Path, Fresh], Awaitable[T]], redis_url: str
    ) -> tuple[Saved, T]:
        """Let `live` do it in a home with fresh databases; returns what it returns as well."""
        home = self.folder / str(len([*self.folder.iterdir()]))
        urls: dict[str, str] = {}

        def fresh(agency: str) -> str:
            urls[agency] = self.databases.fresh(agency)
            return urls[agency]

        told = await live(home, fresh)
        async with Redis.from_url(redis_url) as redis:
            streams: dict[Any, Any] = {name: await redis.dump(name) for name in await redis.keys()}
            await redis.flushall()
        return Saved(home, urls, streams), told

    @asynccontextmanager
    async def copied(self, saved: Saved, home: Path, redis_url: str) -> AsyncIterator[Pair]:
        """Open a copy in a home that is not there yet and a Redis that is empty."""
        shutil.copytree(saved.home, home)
        async with Redis.from_url(redis_url) as redis:
            for name, dump in saved.streams.items():
                await redis.restore(name, 0, dump)
        urls = {name: self.databases.copy(url) for name, url in saved.urls.items()}
        try:
            async with opened_again(home, urls, redis_url) as pair:
                yield pair
        finally:
            for url in urls.values():
                self.databases.drop(url)
