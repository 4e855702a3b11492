"""Follow live what happens at an agency, both ways; stopped anywhere, it goes on from there."""

from contextlib import aclosing
from dataclasses import asdict
from typing import TYPE_CHECKING, Annotated, assert_never

import typer

from schemas.errors import RejectedError
from services.cli import output
from services.cli.everywhere import Output, verb
from services.cli.output import Column, Flow, names_of
from services.cli.report import known_office, moment
from services.cli.session import ArchivesOption, Session, session_of

if TYPE_CHECKING:
    from services.ledger.store import Store
    from services.watch import Cursor, Line, Only, Turn

app = verb()

COLUMNS = [
    Column("at", "TIME", width=20),
    Column("direction", "WAY", width=4),
    Column("state", width=12),
    Column("kind", width=15),
    Column("notice_id", "NOTICE", width=36),
    Column("office", width=6),
    Column("lane", width=7),
    Column("reason", width=14),
    Column("cursor"),
]


@app.command()
def watch(
    ctx: typer.Context,
    *,
    since: Annotated[
        str | None,
        typer.Option(metavar="WHEN", help="Begin with what was sealed then: a time, or 90m, 7d."),
    ] = None,
    after: Annotated[
        str | None,
        typer.Option(metavar="CURSOR", help="Go on after this line, missing and repeating none."),
    ] = None,
    notice: Annotated[
        str | None,
        typer.Option(metavar="NOTICE", help="Only this one: its id, or the beginning of it."),
    ] = None,
    office: Annotated[
        list[str] | None, typer.Option(metavar="AOR", help="Only this office; again for more.")
    ] = None,
    kind: Annotated[
        list[str] | None,
        typer.Option(metavar="KIND", help="Only fta, acknowledgement, outcome, ...; again."),
    ] = None,
    lane: Annotated[
        list[str] | None, typer.Option(metavar="LANE", help="Only live, backlog or control; again.")
    ] = None,
    archive: ArchivesOption = None,
    follow: Annotated[
        bool, typer.Option(help="Wait for more; --no-follow ends at the newest line.")
    ] = True,
) -> None:
    """Show what happens at an agency, line by line, until Ctrl-C: exit 130, with the cursor.

    One line for each record of the ledger, one for each receipt, in the ledger's own order, as soon
    as it is sealed; never the child, nor who acted. Begins now, or with --since or --after. Each
    line ends with a cursor; `--after CURSOR` shows exactly what came behind it.

    Example: noticebus --agency ice watch --since 2h --office HOU -o ndjson
    """
    from services.watch import Cursor, Line
    from services.watch import watch as lines_of

    session = session_of(ctx, archives=archive)
    if since is not None and after is not None:
        raise session.misused("--since and --after each say where to begin; give one of them")
    if follow and output.chosen(session.given.output) is Output.JSON:
        raise session.misused("a JSON document has an end: use -o ndjson, or --no-follow")
    begin = moment(since)
    cursor = Cursor.parse(after) if after is not None else None
    flow = Flow(schema="watch", columns=COLUMNS, output=session.given.output, fields=names_of(Line))
    remarks = _Remarks(session, follow=follow)

    async def work(store: "Store") -> None:

        only = await _only(session, store, notice, offices=office, kinds=kind, lanes=lane)
        lines = lines_of(
            store,
            session.agency,
            after=cursor,
            since=begin,
            only=only,
            follow=follow,
            told=remarks.tell,
        )
        async with aclosing(lines) as coming:
            async for line in coming:
                flow.write(_item(line))
                remarks.shown(line)

    session.with_store(work)
    flow.close(empty="Nothing fits." if any((notice, office, kind, lane)) else "Nothing happened.")


def _item(line: "Line") -> dict[str, object]:
    return {**asdict(line), "cursor": str(line.cursor)}


async def _only(
    session: Session,
    store: "Store",
    notice: str | None,
    *,
    offices: list[str] | None,
    kinds: list[str] | None,
    lanes: list[str] | None,
) -> "Only":
    """Return the filter. Raises `RejectedError` for what never fits, so nobody waits for it."""
    from schemas.envelope import Kind, Lane
    from services.exchange.trace import resolve
    from services.watch import Only

    for given, known, what in ((kinds, Kind, "kind"), (lanes, Lane, "lane")):
        for each in given or ():
            if each not in set(known):
                raise RejectedError(
                    "NB-7005", value=each, what=what, rule=f"Use {', '.join(sorted(known))}."
                )
    return Only(
        notice_id=None if notice is None else await resolve(store, notice, agency=session.agency),
        offices=frozenset(code for each in offices or () if (code := known_office(each))),
        kinds=frozenset(kinds or ()),
        lanes=frozenset(lanes or ()),
    )


class _Remarks:
    """What people are told beside the lines, each thing once until it changes."""

    def __init__(self, session: Session, *, follow: bool) -> None:
        self._session = session
        self._follow = follow
        self._unsealed = self._live = False

    def shown(self, line: "Line") -> None:
        """Note that a line was written."""
        self._unsealed = False
        self._reached(line.cursor)

    def tell(self, turn: "Turn", cursor: "Cursor", waiting: int) -> None:
        """Say what became of watching, where people should know."""
        from services.watch import Turn

        agency = self._session.agency
        match turn:
            case Turn.LIVE:
                self._reached(cursor)
                if self._follow and not self._live:
                    self._session.remark(f"Watching {agency} after {cursor}; Ctrl-C ends it.")
                self._live = True
            case Turn.AWAY:
                self._session.remark("! The store is away; waiting for it.")
            case Turn.BACK:
                self._session.remark(f"The store is back; going on after {cursor}.")
            case Turn.UNSEALED:
                if not self._unsealed:
                    what = "1 record waits" if waiting == 1 else f"{waiting:,} records wait"
                    self._session.remark(
                        f"! {what} for the sealer; to see more, start it: noticebus run {agency}"
                    )
                self._unsealed = True
            case never:
                assert_never(never)

    def _reached(self, cursor: "Cursor") -> None:
        # The last words of this command, whenever Ctrl-C comes.
        self._session.finished = (
            f"Go on with: noticebus --agency {self._session.agency} watch --after {cursor}"
        )
