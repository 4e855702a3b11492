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
from enum import Enum
from functools import cached_property
from importlib.resources import files
from pathlib import Path
from typing import TYPE_CHECKING, Annotated, TypeVar

import typer

from schemas.errors import (
    EvidenceError,
    NotAllowedError,
    NoticeBusError,
    RejectedError,
    UnavailableError,
)
from services.cli import everywhere, output
from services.cli.everywhere import Everywhere
from services.cli.exits import say
from services.cli.output import Column, Item
from services.cli.progress import Progress

if TYPE_CHECKING:
    from services.exchange.agency import Agency
    from services.ledger.store import Prepare, Store
    from services.settings import Settings

T = TypeVar("T")

AGENCIES = ("ice", "hhs")

ArchivesOption = Annotated[
    list[Path] | None,
    typer.Option(
        "--archive",
        metavar="FILE",
        help="An archive that lies beside the store meanwhile; again for more.",
    ),
]


class Doubtful(Enum):
    """What becomes of work on a store that is not what its anchor says, or that is not adopted."""

    SAID = "said"  # it reads, and beside what it says stands that the store is in doubt
    REFUSED = "refused"  # it publishes, or is an act: exit 6 until a person adopts the store
    LEFT = "left"  # it is there to tell of just that


@dataclass
class Session:
    """One command's surroundings; `doubt` is what is wrong with the store as a whole."""

    given: Everywhere
    needed: str | None = None
    command: str = "noticebus"
    # The side that is meant where a command works on both, and nobody said which.
    usual: str | None = None
    finished: str | None = field(default=None, init=False)
    # Files that lie beside our store while we read it: what moved to them is there again.
    archives: Sequence[Path] = field(default=(), init=False)
    doubt: NoticeBusError | None = field(default=None, init=False)

    @cached_property
    def agency(self) -> str:
        """On whose side we act; raises `RejectedError` (exit 2) when nobody said."""
        named = self.given.agency or os.environ.get("NOTICEBUS_AGENCY")
        if not named:
            # A command that exists on one side alone need not be told which.
            if alone := self.needed or self.usual:
                return alone
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

        settings = self.settings
        quiet, chatty = (settings.log_level, "DEBUG") if process else ("ERROR", "INFO")
        telemetry.configure(
            agency=self.agency,
            process=process or "cli",
            level=chatty if self.given.verbose else quiet,
        )
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

    def with_store(
        self,
        work: "Callable[[Store], Awaitable[T]]",
        *,
        sends: bool = False,
        doubtful: Doubtful = Doubtful.SAID,
    ) -> T:
        """Run `work` with our store and return what it returns.

        Work that `sends` needs our streams; if the agency never ran, they are made first. On a
        store in doubt it is refused (`EvidenceError` NB-3060, NB-3150 to NB-3153), and so is what
        `doubtful` says; whatever else reads is told of it once.
        """

        async def known(store: "Store") -> T:
            if doubtful is not Doubtful.LEFT:
                doubt = await _doubt(store, settings)
                if doubt is not None and (sends or doubtful is Doubtful.REFUSED):
                    raise doubt
                if doubt is not None and self.doubt is None:
                    # An alarm, and said to those who want quiet too.
                    say(f"! {doubt.code}: {doubt.sentence}", f"  fix: {doubt.fix}")
                    self.doubt = doubt
            return await work(store)

        with self.attached() as settings:
            return asyncio.run(_with_store(settings, known, sends=sends, archives=self.archives))

    def with_agency(self, work: "Callable[[Agency], Awaitable[T]]", *, bus: bool = False) -> T:
        """Run `work` with our store, keys and party files, and return what it returns."""
        with self.attached(bus=bus) as settings:
            return asyncio.run(_with_agency(settings, work, archives=self.archives))

    def emit(
        self,
        items: Sequence[Item],
        *,
        schema: str,
        columns: Sequence[Column],
        empty: str,
        fields: Sequence[str] = (),
        also: Item | None = None,
    ) -> None:
        """Write a list to standard output in the format asked for."""
        output.emit(
            items,
            schema=schema,
            columns=columns,
            output=self.given.output,
            empty=empty,
            fields=fields,
            also={**(also or {}), **self._doubt_said()},
        )

    def emit_one(self, item: Item, *, schema: str, people: Sequence[str] = ()) -> None:
        """Write one object to standard output in the format asked for."""
        said = {**item, **self._doubt_said()}
        output.emit_one(said, schema=schema, output=self.given.output, people=people)

    def _doubt_said(self) -> Item:
        """Return what a document says of a store in doubt."""
        doubt = self.doubt
        return {} if doubt is None else {"doubt": {"code": doubt.code, "sentence": doubt.sentence}}

    def remark(self, *lines: str) -> None:
        """Tell people something on standard error, unless they want quiet."""
        if not self.given.quiet:
            say(*lines)

    @contextmanager
    def progress(
        self, what: str, *, unit: str, total: int | None = None, again: str | None = None
    ) -> Iterator[Progress]:
        """Show progress; if the work is interrupted, its last state becomes our last words.

        `again` says how such work goes on.
        """
        with Progress(what, unit=unit, total=total, quiet=self.given.quiet) as progress:
            try:
                yield progress
            except (KeyboardInterrupt, asyncio.CancelledError):
                self.finished = progress.finished + (f"; {again}" if again else "")
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

    def confirm_count(self, count: int, verb: str, what: str, confirm: int | None) -> None:
        """Have a person type how many they are about to change, or compare it with `--confirm`.

        Raises `RejectedError` NB-6074 for another number, NB-6075 where nobody can be asked.
        """
        if confirm is not None:
            if confirm != count:
                raise RejectedError("NB-6074", confirm=confirm, count=count, what=what)
            return
        if not sys.stdin.isatty():
            raise RejectedError("NB-6075", count=count, what=what)
        typed: str = typer.prompt(f"{verb} {count} {what}? Type the number to go on", err=True)
        if typed.strip() != str(count):
            raise NotAllowedError("NB-7016")


def session_of(
    ctx: typer.Context,
    needed: str | None = None,
    *,
    usual: str | None = None,
    archives: Sequence[Path] | None = None,
    unusable_preset: bool = False,
) -> Session:
    """Return the session of this command line; `needed` is the one side the command works on.

    `usual` is the side that is meant where it works on both and none is named. Raises
    `RejectedError` NB-7010 for a NOTICEBUS_OUTPUT that is no format, unless the command tells of it
    itself (`unusable_preset`).
    """
    given = everywhere.of(ctx)
    if given.unusable is not None and not unusable_preset:
        raise given.unusable
    session = Session(given, needed, ctx.command_path, usual)
    session.archives = archives or ()
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
    settings: "Settings",
    work: "Callable[[Store], Awaitable[T]]",
    *,
    sends: bool,
    archives: Sequence[Path],
) -> T:
    from services.ledger.store import Store

    prepare = await _beside(settings, archives)
    store = await Store.open(settings.database_url_required, pool_max=2, prepare=prepare)
    try:
        if sends and not await _has_streams(store):
            await _with_agency(settings, nothing, archives=())
        return await work(store)
    finally:
        await store.close()


async def _doubt(store: "Store", settings: "Settings") -> NoticeBusError | None:
    """Return why nothing may go on from this store, None when it may."""
    from services.exchange.anchors import own_anchor
    from services.exchange.store import standing
    from services.ledger.anchor import look

    async with store.transaction() as tx:
        if await standing.restored(tx):
            return EvidenceError("NB-3060")
        try:
            return (await look(tx, await own_anchor(tx, settings))).error()
        except EvidenceError as error:
            return error
        except UnavailableError as error:
            if error.code != "NB-3154":
                raise
            return error


async def _has_streams(store: "Store") -> bool:
    from services.exchange.store import outgoing

    async with store.transaction() as tx:
        return bool(await outgoing.streams_by_lane(tx))


async def nothing(_: object) -> None:
    """Do nothing: for opening a store or an agency to see that it opens."""


async def _with_agency(
    settings: "Settings", work: "Callable[[Agency], Awaitable[T]]", *, archives: Sequence[Path]
) -> T:
    from services.exchange.agency import open_agency

    prepare = await _beside(settings, archives)
    async with open_agency(settings, prepare=prepare) as agency:
        return await work(agency)


async def _beside(settings: "Settings", archives: Sequence[Path]) -> "Prepare | None":
    """Verify archives and return what lays them beside the store."""
    if not archives:
        return None
    from services.backup.beside import beside
    from services.keys import KeyRing
    from services.ledger.store import Store

    ring = KeyRing.load(settings.keys_folder)
    async with await Store.open(settings.database_url_required, pool_max=1) as store:
        return await beside(store, ring, archives)


def _os_user() -> str:
    try:
        return getpass.getuser()
    except OSError:
        # A container's user may have a number and no name.
        return f"uid {os.getuid()}"
