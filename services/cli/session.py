"""What one command works with: whose side, which settings, which servers, who acts.

A session is made from the options of the line. Servers named in the settings are used as they are;
where none is named, the embedded ones of the home folder are attached, and stopped by their last
user. Nothing is opened before a command asks for it, so that help and mistakes are quick.
"""

import asyncio
import getpass
import os
import sys
from collections.abc import Awaitable, Callable, Iterator, Sequence
from contextlib import contextmanager
from dataclasses import dataclass, field
from functools import cached_property
from importlib.resources import files
from pathlib import Path
from typing import TYPE_CHECKING, TypeVar

import typer

from schemas.errors import NotAllowedError, RejectedError
from services.cli import everywhere, output
from services.cli.everywhere import Everywhere
from services.cli.exits import say
from services.cli.output import Column, Item
from services.cli.progress import Progress

if TYPE_CHECKING:
    from services.exchange.agency import Agency
    from services.ledger.store import Store
    from services.settings import Settings

T = TypeVar("T")

AGENCIES = ("ice", "hhs")


@dataclass
class Session:
    """One command's surroundings."""

    given: Everywhere
    needed: str | None = None
    command: str = "noticebus"
    finished: str | None = field(default=None, init=False)

    @cached_property
    def agency(self) -> str:
        """On whose side we act; raises `RejectedError` (exit 2) when nobody said."""
        named = self.given.agency or os.environ.get("NOTICEBUS_AGENCY")
        if not named:
            # A command that exists on one side alone need not be told which.
            if self.needed:
                return self.needed
            raise RejectedError("NB-7001")
        if named not in AGENCIES:
            raise RejectedError("NB-7002", agency=named)
        if self.needed and named != self.needed:
            raise RejectedError("NB-7003", needed=self.needed, agency=named)
        return named

    @property
    def home(self) -> Path:
        """The home folder, needed even where no agency is."""
        return self.given.home or Path(os.environ.get("NOTICEBUS_HOME") or ".noticebus")

    @cached_property
    def settings(self) -> "Settings":
        """Our settings as the environment has them, before servers are attached."""
        from services.settings import load

        return load(self.agency, home=self.given.home)

    @cached_property
    def actor(self) -> str:
        """Who acts: `--as`, else the OS user."""
        return self.given.actor or os.environ.get("NOTICEBUS_ACTOR") or _os_user()

    @contextmanager
    def attached(
        self, *, bus: bool = False, database: bool = True, process: str | None = None
    ) -> "Iterator[Settings]":
        """Give out settings with addresses of living servers while the block runs.

        An embedded database is migrated on first use; one that was named is left to `db migrate`.
        `process` names a long-running process, which says more than a command.
        """
        from services import telemetry
        from services.embedded import attach

        telemetry.configure(
            agency=self.agency,
            process=process or "cli",
            level="INFO" if process or self.given.verbose else "ERROR",
        )
        settings = self.settings
        known = {
            name: url
            for name, url in (
                (self.agency, settings.database_url),
                ("redis", settings.redis_url),
            )
            if url
        }
        need = [name for name, wanted in ((self.agency, database), ("redis", bus)) if wanted]
        with attach(settings.home, need, given=known) as servers:
            found = {"redis_url": servers.redis_url} if bus else {}
            if database:
                found["database_url"] = servers.database_urls[self.agency]
                if not settings.database_url:
                    _migrate_once(settings, found["database_url"])
            yield settings.model_copy(update=found)

    def misused(self, cause: str) -> RejectedError:
        """Return the error for options that do not go together."""
        return RejectedError("NB-7011", cause=cause, command=self.command)

    def with_store(self, work: "Callable[[Store], Awaitable[T]]", *, sends: bool = False) -> T:
        """Run `work` with our store and return what it returns.

        Work that `sends` needs our streams; if the agency never ran, they are made first.
        """
        with self.attached() as settings:
            return asyncio.run(_with_store(settings, work, sends=sends))

    def with_agency(self, work: "Callable[[Agency], Awaitable[T]]", *, bus: bool = False) -> T:
        """Run `work` with our store, keys and party files, and return what it returns."""
        with self.attached(bus=bus) as settings:
            return asyncio.run(_with_agency(settings, work))

    def emit(
        self, items: Sequence[Item], *, schema: str, columns: Sequence[Column], empty: str
    ) -> None:
        """Write a list to standard output in the format asked for."""
        output.emit(items, schema=schema, columns=columns, output=self.given.output, empty=empty)

    def emit_one(self, item: Item, *, schema: str, people: Sequence[str] = ()) -> None:
        """Write one object to standard output in the format asked for."""
        output.emit_one(item, schema=schema, output=self.given.output, people=people)

    def remark(self, *lines: str) -> None:
        """Tell people something on standard error, unless they want quiet."""
        if not self.given.quiet:
            say(*lines)

    @contextmanager
    def progress(self, what: str, *, unit: str, total: int | None = None) -> Iterator[Progress]:
        """Show progress; if the work is interrupted, its last state becomes our last words."""
        with Progress(what, unit=unit, total=total, quiet=self.given.quiet) as progress:
            try:
                yield progress
            except (KeyboardInterrupt, asyncio.CancelledError):
                self.finished = progress.finished
                raise

    def confirm(self, question: str, *, unattended: bool = False) -> None:
        """Ask before a moderate act; raises `NotAllowedError` on no.

        Where nobody can answer, `unattended` acts go on, and others raise `RejectedError`.
        """
        if self.given.yes:
            return
        if not sys.stdin.isatty():
            if unattended:
                return
            raise RejectedError("NB-7008")
        if not typer.confirm(question, err=True):
            raise NotAllowedError("NB-7016")


def session_of(ctx: typer.Context, needed: str | None = None) -> Session:
    """Return the session of this command line; `needed` is the one side the command works on."""
    session = Session(everywhere.of(ctx), needed, ctx.command_path)
    ctx.find_root().meta["session"] = session
    return session


def _migrate_once(settings: "Settings", url: str) -> None:
    """Migrate an embedded database unless this program already did."""
    revisions = files("services.ledger").joinpath("migrations/sql").iterdir()
    wanted = "\n".join(sorted(each.name for each in revisions))
    mark = settings.agency_home / "migrated"
    if mark.exists() and mark.read_text(encoding="utf-8") == wanted:
        return
    from services.ledger.store import migrate

    migrate(url, settings.agency)
    mark.write_text(wanted, encoding="utf-8")


async def _with_store(
    settings: "Settings", work: "Callable[[Store], Awaitable[T]]", *, sends: bool
) -> T:
    from services.ledger.store import Store

    store = await Store.open(settings.database_url_required, pool_max=2)
    try:
        if sends and not await _has_streams(store):
            await _with_agency(settings, nothing)
        return await work(store)
    finally:
        await store.close()


async def _has_streams(store: "Store") -> bool:
    from services.exchange.store import outgoing

    async with store.transaction() as tx:
        return bool(await outgoing.streams_by_lane(tx))


async def nothing(_: object) -> None:
    """Do nothing: for opening a store or an agency to see that it opens."""


async def _with_agency(settings: "Settings", work: "Callable[[Agency], Awaitable[T]]") -> T:
    from services.exchange.agency import open_agency

    async with open_agency(settings) as agency:
        return await work(agency)


def _os_user() -> str:
    try:
        return getpass.getuser()
    except OSError:
        # A container's user may have a number and no name.
        return f"uid {os.getuid()}"
