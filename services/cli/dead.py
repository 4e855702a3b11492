"""Dead letters: read what was set aside, redrive it, or give it up with a reason.

Here is what we could not take of the other side's messages. At ICE there is more: what HHS refused
of ours, with the code and the field that it named; that is corrected, never redriven from here.
"""

import re
from dataclasses import asdict
from typing import TYPE_CHECKING, Annotated

import typer

from schemas.errors import ConflictError, NotFoundError, wordings
from services.cli import redriving
from services.cli.everywhere import noun
from services.cli.output import Column, names_of
from services.cli.redriving import CauseOption, GroupOption, LaneOption, OfficeOption
from services.cli.report import SinceOption, UntilOption, moment
from services.cli.session import Session, session_of

if TYPE_CHECKING:
    from services.exchange.agency import Agency
    from services.exchange.dead import Detail, Group
    from services.exchange.store.dead import DeadLetter
    from services.exchange.store.redrives import Chosen, RedriveRow
    from services.ice.store.refusals import Refused
    from services.ledger.store import Store

app = noun("Read what was set aside, redrive it, or give it up.")

STATES = ("open", "redriven", "discarded", "refused", "corrected", "correcting", "all")
GROUP_COLUMNS = [
    Column("group_id", "GROUP"),
    Column("count", right=True),
    Column("first_at", "OLDEST"),
    Column("last_at", "LAST"),
    Column("tried_at", "LAST REDRIVE"),
    Column("offices"),
    Column("fields"),
    Column("words", "WHAT IT MEANS"),
]
LETTER_COLUMNS = [
    Column("dead_id", "DEAD LETTER"),
    Column("state"),
    Column("cause"),
    Column("field"),
    Column("office"),
    Column("notice_id", "NOTICE"),
    Column("stream"),
    Column("arrivals", right=True),
    Column("first_at", "FIRST"),
    Column("last_at", "LAST"),
]
REDRIVE_COLUMNS = [
    Column("redrive_id", "REDRIVE"),
    Column("state"),
    Column("asked", right=True),
    Column("taken", right=True),
    Column("held", right=True),
    Column("failed", right=True),
    Column("passed", right=True),
    Column("begun_at", "BEGUN"),
    Column("actor", "BY"),
    Column("reason", "WHY"),
]
# All that an item may have: what we set aside, and at ICE what HHS refused of ours beside it.
GROUP_FIELDS = (
    *("group_id", "cause", "because", "schema_version", "count", "first_at", "last_at", "fields"),
    *("offices", "lanes", "tried_at", "words"),
)
LETTER_FIELDS = (
    *("dead_id", "state", "cause", "field", "words", "stream", "authentic", "schema_version"),
    *("office", "message_id", "notice_id", "revision", "sequence", "arrivals"),
    *("first_at", "last_at", "final", "fix", "next"),
)
# How the groups of what HHS refused are told from those of what we set aside.
OURS = "ours"


@app.command("list")
def list_(
    ctx: typer.Context,
    *,
    group: GroupOption = None,
    letters: Annotated[
        bool, typer.Option("--letters", help="Each dead letter instead of groups.")
    ] = False,
    redrives: Annotated[
        bool, typer.Option("--redrives", help="The redrives so far: who, when, why, what came.")
    ] = False,
    state: Annotated[
        str,
        typer.Option(
            help="open, redriven, discarded, refused, corrected, correcting or all.",
            metavar="STATE",
        ),
    ] = "open",
    cause: CauseOption = None,
    office: OfficeOption = None,
    lane: LaneOption = None,
    since: SinceOption = None,
    until: UntilOption = None,
    limit: Annotated[int, typer.Option(min=1, max=100_000)] = 1_000,
) -> None:
    """List dead letters in groups of one cause and schema version; --group ID lists one group.

    At ICE the groups that begin with `ours` are what HHS refused of our own messages.
    Example: noticebus --agency hhs dead list --office HOU
    """
    session = session_of(ctx)
    if redrives:
        _list_redrives(session, limit)
        return
    if state not in STATES:
        raise session.misused(f"--state is one of {', '.join(STATES)}")
    chosen = redriving.chosen(
        state=None if state == "all" else state,
        cause=cause,
        group=group,
        office=office,
        lane=lane,
        since=moment(since),
        until=moment(until),
    )
    empty = (
        "Nothing was set aside."
        if state == "all"
        else f"No dead letter is {state}. --state all shows every one."
    )
    found = _found(session, chosen, limit, grouped=not (group or letters))
    session.emit(
        found,
        schema="dead.list" if group or letters else "dead.groups",
        columns=LETTER_COLUMNS if group or letters else GROUP_COLUMNS,
        fields=LETTER_FIELDS if group or letters else GROUP_FIELDS,
        empty=empty,
    )


@app.command()
def show(
    ctx: typer.Context,
    dead_id: Annotated[
        str,
        typer.Argument(metavar="ID", help="Or its beginning; at ICE a refused message's, too."),
    ],
) -> None:
    """Show one dead letter: cause, what to do, each attempt, and what people did with it."""
    session = session_of(ctx)

    async def work(agency: "Agency") -> "Detail | Refused":
        from services.exchange import dead

        try:
            return await dead.show(agency, dead_id)
        except NotFoundError:
            if agency.name != "ice":
                raise
            from services.exchange.beginnings import beginning
            from services.ice import notices

            refused = await notices.refused(agency.store, begins=beginning(dead_id), limit=2)
            if not refused:
                raise
            if len({each.notice_id for each in refused}) > 1:
                raise ConflictError("NB-6002", dead_id=dead_id) from None
            return refused[0]

    found = session.with_agency(work)
    item = _refused_item(found) if _is_refused(found) else _detail_item(found)
    session.emit_one(item, schema="dead.show")


@app.command()
def redrive(
    ctx: typer.Context,
    *,
    ids: Annotated[
        list[str] | None, typer.Argument(metavar="ID", help="Or the beginnings of them.")
    ] = None,
    reason: Annotated[str, typer.Option(help="Why it will work now; it is on record.")] = "",
    group: GroupOption = None,
    cause: CauseOption = None,
    office: OfficeOption = None,
    lane: LaneOption = None,
    everything: Annotated[bool, typer.Option("--all", help="Every open one.")] = False,
    rate: Annotated[
        int | None,
        typer.Option(min=1, max=10_000, help="So many a second; else live traffic decides."),
    ] = None,
    confirm: redriving.ConfirmOption = None,
    dry_run: Annotated[
        bool, typer.Option("--dry-run", help="Show what would happen; try nothing.")
    ] = False,
    resume: Annotated[
        str | None, typer.Option(metavar="REDRIVE", help="Go on with one that was interrupted.")
    ] = None,
) -> None:
    """Try the same bytes again, as if they had just arrived; what is taken is receipted.

    Shows first what would happen. Exit 5 when some failed again. An interrupted redrive goes on
    with --resume. Example: noticebus --agency hhs dead redrive --group NB-2010.unread --reason
    "the new key is trusted" --confirm 612
    """
    from services.exchange.dead import Chosen

    session = session_of(ctx)
    narrowed = bool(group or cause or office or lane or everything)
    if resume is not None:
        if ids or narrowed or dry_run:
            raise session.misused("a redrive that was begun already says what it redrives")
        redriving.go_on(session, resume)
        return
    if bool(ids) == narrowed:
        raise session.misused("name dead letters, or use --group, --cause, --office, --lane, --all")
    if not reason and not dry_run:
        raise session.misused("--reason is needed: it is on record")
    chosen = Chosen(group=group, cause=cause, office=office, lane=lane)
    letters = redriving.letters_of(session, ids or [], chosen)
    redriving.redrive(session, letters, reason, rate=rate, confirm=confirm, dry_run=dry_run)


@app.command()
def discard(
    ctx: typer.Context,
    *,
    ids: Annotated[
        list[str] | None, typer.Argument(metavar="ID", help="Or the beginnings of them.")
    ] = None,
    reason: Annotated[
        str, typer.Option(metavar="CODE", help="Of the closed list; a wrong one is explained.")
    ],
    text: Annotated[str, typer.Option(help="Why, in words; it is on record.")],
    group: GroupOption = None,
    confirm: redriving.ConfirmOption = None,
) -> None:
    """Give dead letters up with a reason; nothing is deleted, and no clock of a notice stops.

    Example: noticebus --agency hhs dead discard 0193 --reason TEST --text "drill of 3 March"
    """
    from services.exchange import dead
    from services.exchange.dead import Chosen

    session = session_of(ctx)
    if bool(ids) == bool(group):
        raise session.misused("name dead letters, or use --group")
    letters = redriving.letters_of(session, ids or [], Chosen(group=group))
    if len(letters) > 1:
        session.confirm_count(len(letters), "Give up", "dead letters", confirm)

    async def work(agency: "Agency") -> int:
        return await dead.discard(
            agency, letters, code=reason.upper(), reason=text, actor=session.actor
        )

    discarded = session.with_agency(work) if letters else 0
    session.emit_one(
        {
            "discarded": discarded,
            "already": len(letters) - discarded,
            "reason": reason.upper(),
            "letters": letters,
        },
        schema="dead.discard",
        people=[
            f"Discarded {discarded:,}, {len(letters) - discarded:,} were before.",
            "  their bytes are kept, and the clocks of their notices run on",
        ],
    )


def _found(
    session: Session, chosen: "Chosen", limit: int, *, grouped: bool
) -> list[dict[str, object]]:
    """Return groups or letters as items: what we set aside, and at ICE what HHS refused of ours."""
    from services.exchange import dead

    async def work(agency: "Agency") -> list[dict[str, object]]:
        refused: list[Refused] = []
        if agency.name == "ice":
            refused = [r for r in await _refused(agency.store, chosen, limit) if _within(r, chosen)]
        if grouped:
            groups = await dead.groups(agency, chosen)
            return [*(_group_item(each) for each in groups), *_refused_groups(refused)]
        letters = await dead.listed(agency, chosen=chosen, limit=limit)
        return [*(_item(each) for each in letters), *(_refused_item(each) for each in refused)]

    return session.with_agency(work)


async def _refused(store: "Store", chosen: "Chosen", limit: int) -> "list[Refused]":
    from services.ice import notices

    return await notices.refused(
        store,
        state=chosen.state,
        cause=chosen.cause,
        office=chosen.office,
        lane=chosen.lane,
        limit=limit,
    )


def _within(refused: "Refused", chosen: "Chosen") -> bool:
    return (
        (chosen.group is None or chosen.group == _group_of(refused))
        and (chosen.since is None or refused.received_at >= chosen.since)
        and (chosen.until is None or refused.received_at < chosen.until)
    )


def _list_redrives(session: Session, limit: int) -> None:
    from services.exchange.store.redrives import RedriveRow

    async def work(agency: "Agency") -> "list[RedriveRow]":
        from services.exchange import redrive as redrives

        return await redrives.listed(agency, limit=limit)

    session.emit(
        [asdict(each) for each in session.with_agency(work)],
        schema="dead.redrives",
        columns=REDRIVE_COLUMNS,
        fields=names_of(RedriveRow),
        empty="Nothing was redriven yet.",
    )


def _is_refused(found: "Detail | Refused") -> bool:
    return not hasattr(found, "letter")


def _item(letter: "DeadLetter") -> dict[str, object]:
    return {
        "dead_id": letter.dead_id,
        "state": letter.state,
        "cause": letter.cause,
        "field": letter.field,
        "words": _words(letter.cause),
        "stream": letter.stream,
        "authentic": letter.authentic,
        "schema_version": letter.schema_version,
        "office": letter.office,
        "message_id": letter.message_id,
        "notice_id": letter.notice_id,
        "sequence": letter.sequence,
        "arrivals": letter.arrivals,
        "first_at": letter.first_at,
        "last_at": letter.last_at,
    }


def _detail_item(found: "Detail | Refused") -> dict[str, object]:
    from services.exchange.dead import Detail

    assert isinstance(found, Detail)
    letter = found.letter
    words = wordings().get(letter.cause)
    return {
        **_item(letter),
        "fix": words.fix if words else None,
        "resolved_by": letter.resolved_by,
        "entry_id": letter.entry_id,
        "bytes": len(letter.envelope),
        "bytes_sha256": letter.bytes_hash,
        "attempts": [asdict(each) for each in found.attempts],
        "history": [asdict(each) for each in found.history],
    }


def _refused_item(found: "Detail | Refused") -> dict[str, object]:
    from services.ice.store.refusals import Refused

    assert isinstance(found, Refused)
    words = wordings().get(found.cause)
    correct = f"noticebus notice correct {found.notice_id} --reason CODE"
    return {
        "dead_id": found.message_id,
        "state": found.state,
        "cause": found.cause,
        "field": found.field,
        "words": _words(found.cause),
        "stream": found.stream,
        "authentic": True,
        "schema_version": None,
        "office": found.office,
        "message_id": found.message_id,
        "notice_id": found.notice_id,
        "revision": found.revision,
        "sequence": found.sequence,
        "arrivals": 1,
        "first_at": found.refused_at,
        "last_at": found.received_at,
        "final": found.final,
        "fix": words.fix if words else None,
        "next": correct if found.state == "open" else None,
    }


def _group_item(group: "Group") -> dict[str, object]:
    return {**asdict(group), "words": _words(group.because or group.cause) or _words(group.cause)}


def _group_of(refused: "Refused") -> str:
    return f"{OURS}.{refused.cause}"


def _refused_groups(refused: "list[Refused]") -> list[dict[str, object]]:
    groups: dict[str, list[Refused]] = {}
    for each in refused:
        groups.setdefault(_group_of(each), []).append(each)
    return [
        {
            "group_id": group_id,
            "cause": some[0].cause,
            "because": None,
            "schema_version": None,
            "count": len(some),
            "first_at": min(each.refused_at for each in some),
            "last_at": max(each.received_at for each in some),
            "fields": sorted({each.field for each in some if each.field}),
            "offices": sorted({each.office for each in some}),
            "lanes": sorted({each.lane for each in some}),
            "tried_at": None,
            "words": _words(some[0].cause),
        }
        for group_id, some in sorted(groups.items(), key=lambda group: -len(group[1]))
    ]


def _words(cause: str) -> str | None:
    """Return an error's sentence without the values that the one case had: they are not kept."""
    words = wordings().get(cause)
    return re.sub(r"\{\w+\}", "…", words.sentence) if words else None
