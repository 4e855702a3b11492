"""What the verbs of `replay` share: options that select, the work with its servers, and words."""

from collections.abc import AsyncIterator, Awaitable, Callable, Sequence
from contextlib import asynccontextmanager
from dataclasses import asdict, dataclass, replace
from pathlib import Path
from typing import TYPE_CHECKING, Annotated, TypeVar

import typer

from schemas.errors import RejectedError
from services.cli.output import Column, Item, readable
from services.cli.progress import Progress
from services.cli.report import age, moment
from services.cli.session import Doubtful, Session

if TYPE_CHECKING:
    from services.exchange.agency import Agency
    from services.ledger.store import Store
    from services.replay import (
        Counts,
        Examined,
        Plan,
        Planned,
        Ran,
        Saved,
        Selection,
        Sink,
        Source,
        Target,
    )

T = TypeVar("T")

FromOption = Annotated[
    str | None,
    typer.Option(
        "--from", metavar="SOURCE", help="store, stream:NAME, or archive:FILE; else the store."
    ),
]
SequenceOption = Annotated[
    list[str] | None,
    typer.Option(metavar="STREAM:N-M", help="These sequences of a stream; may be repeated."),
]
NoticeOption = Annotated[
    list[str] | None,
    typer.Option(metavar="NOTICE", help="This notice, by its id or beginning; may be repeated."),
]
OfficeOption = Annotated[
    list[str] | None, typer.Option(metavar="OFFICE", help="About this office; may be repeated.")
]
KindOption = Annotated[
    list[str] | None, typer.Option(metavar="KIND", help="fta, outcome, ...; may be repeated.")
]
LaneOption = Annotated[list[str] | None, typer.Option(metavar="LANE", help="live or backlog.")]
DeadOption = Annotated[
    list[str] | None,
    typer.Option(metavar="GROUP", help="Set aside so: a group of `dead list`, or NB-nnnn."),
]
EVENT_COLUMNS = [
    Column("standing", "EVENT"),
    Column("kind"),
    Column("notice_id", "NOTICE"),
    Column("revision", "REV", right=True),
    Column("office"),
    Column("at"),
    Column("differs", "WHAT DIFFERS"),
]
PLAN_COLUMNS = [
    Column("plan_id", "PLAN"),
    Column("state"),
    Column("from"),
    Column("to"),
    Column("events", right=True),
    Column("changes", right=True),
    Column("done", right=True),
    Column("made_by", "BY"),
    Column("made_at", "MADE"),
    Column("expires_at", "HOLDS UNTIL"),
]
# What `described` returns, in its order.
PLAN_FIELDS = (
    *("plan_id", "state", "from", "to", "since", "until", "selects", "events"),
    *("new", "same", "changed", "blocked", "counts", "offices", "changes", "needs_approval"),
    *("approved_by", "approved_at", "made_by", "made_at", "expires_at", "begun_at", "ran_at"),
    *("done", "written"),
)
SAVED_COLUMNS = [
    Column("name"),
    Column("from"),
    Column("selects"),
    Column("saved_by", "BY"),
    Column("saved_at", "SAVED"),
]
OFFICES_SHOWN = 12


@dataclass(frozen=True, slots=True)
class Chosen:
    """What the options of a command line select, as they were given."""

    since: str | None = None
    until: str | None = None
    source: str | None = None
    sequences: list[str] | None = None
    notices: list[str] | None = None
    offices: list[str] | None = None
    kinds: list[str] | None = None
    lanes: list[str] | None = None
    dead: list[str] | None = None
    saved: str | None = None
    save: str | None = None

    @property
    def selects(self) -> bool:
        """Whether anything but a time and a saved name was given."""
        return any((self.sequences, self.notices, self.offices, self.kinds, self.lanes, self.dead))


async def _selected(store: "Store", chosen: Chosen) -> "tuple[Selection, str, dict[str, str]]":
    """Return what is selected as of now, the name of the source, and ends that are ages."""
    from services import replay
    from services.replay import selection as words

    since, until = moment(chosen.since), moment(chosen.until)
    if chosen.saved is not None:
        kept = await replay.saved(store, chosen.saved)
        given = {"since": chosen.since, "until": chosen.until}
        ages = {end: found for end in given if (found := age(given[end] or kept.ages.get(end)))}
        selection = replace(
            kept.selection,
            since=since or moment(ages.get("since")) or kept.selection.since,
            until=until or moment(ages.get("until")) or kept.selection.until,
        )
        return selection, chosen.source or kept.source, ages
    selection = replay.Selection(
        since=since,
        until=until,
        notices=tuple([await replay.notice_named(store, each) for each in chosen.notices or ()]),
        sequences=tuple(map(replay.SequenceRange.of, chosen.sequences or ())),
        offices=tuple(map(words.office_of, chosen.offices or ())),
        kinds=tuple(map(words.kind_of, chosen.kinds or ())),
        lanes=tuple(map(words.lane_of, chosen.lanes or ())),
        dead=tuple(map(replay.DeadGroup.of, chosen.dead or ())),
    )
    given = {"since": age(chosen.since), "until": age(chosen.until)}
    return selection, chosen.source or "store", {end: each for end, each in given.items() if each}


def planned_of(
    session: Session,
    to: str,
    chosen: Chosen,
    *,
    limit: int = 100,
    tell: "Callable[[Examined], None] | None" = None,
) -> "Planned":
    """Make a plan from what was given, with progress."""
    from services import replay
    from services.garbage import collect_seldom
    from services.replay.saved import check_name

    collect_seldom()
    if chosen.saved is not None and chosen.selects:
        raise session.misused("--saved says what is selected; only a time can be added")
    if chosen.save is not None:
        check_name(chosen.save)
    target = target_of(to)
    with session.progress("planning", unit="events") as progress:

        async def make(store: "Store", agency: "Agency | None") -> "Planned":
            selection, name, ages = await _selected(store, chosen)
            async with _source(session, store, agency, name, progress) as source:
                planned = await replay.plan(
                    store,
                    session.agency,
                    selection=selection,
                    target=target,
                    source=source,
                    actor=session.actor,
                    first_max=limit,
                    progress=lambda done: progress.update(done, what="planning", unit="events"),
                    tell=tell,
                )
            # Kept once it has proved to select something that can be planned.
            if chosen.save is not None:
                await replay.save(
                    store, chosen.save, selection, source=name, actor=session.actor, ages=ages
                )
            return planned

        return _with(session, make, bus=_needs_bus(session, chosen))


def run_of(
    session: Session,
    plan: "Plan",
    reason: str,
    *,
    confirm: int | None,
    rate: int | None,
    maxlen: int | None,
    again: str,
) -> "Ran":
    """Run a plan, with progress; one that is interrupted says how it goes on (`again`)."""
    from services import replay
    from services.garbage import collect_seldom

    if maxlen is not None and plan.target.stream is None:
        raise session.misused("--maxlen is for what goes to a stream")
    collect_seldom()
    total = plan.counts.events
    with session.progress("replaying", unit="events", again=again) as progress:

        def told(done: int, what: str) -> None:
            progress.update(done, total=total, what=what, unit="events")

        async def go(store: "Store", agency: "Agency | None") -> "Ran":
            async with (
                _source(session, store, agency, plan.source, progress) as source,
                _sink(agency, plan.target, maxlen) as sink,
            ):
                return await replay.run(
                    store,
                    session.agency,
                    plan,
                    actor=session.actor,
                    reason=reason,
                    confirm=confirm,
                    rate=rate,
                    source=source,
                    sink=sink,
                    progress=lambda done: told(done, "replaying"),
                    checking=lambda done: told(done, "checking the plan"),
                )

        bus = plan.source.startswith("stream:") or plan.target.stream is not None
        return _with(session, go, bus=bus)


def target_of(to: str) -> "Target":
    """Return the place that a text names."""
    from services.replay import Target

    return Target.of(to)


def _needs_bus(session: Session, chosen: Chosen) -> bool:
    if chosen.saved is None or chosen.source is not None:
        return bool(chosen.source and chosen.source.startswith("stream:"))

    async def kept(store: "Store") -> str:
        from services import replay

        return (await replay.saved(store, chosen.saved or "")).source

    return session.with_store(kept).startswith("stream:")


def _with(
    session: Session, work: "Callable[[Store, Agency | None], Awaitable[T]]", *, bus: bool
) -> T:
    """Do work with our store; what reads or writes streams needs our keys and the bus as well."""
    if not bus:

        async def with_store(store: "Store") -> T:
            return await work(store, None)

        return session.with_store(with_store, doubtful=Doubtful.REFUSED)

    async def with_agency(agency: "Agency") -> T:
        return await work(agency.store, agency)

    return session.with_agency(with_agency, bus=True)


@asynccontextmanager
async def _source(
    session: Session, store: "Store", agency: "Agency | None", name: str, progress: Progress
) -> "AsyncIterator[Source]":
    """Open what messages are read from. Raises `RejectedError` NB-6031 for what is no source.

    What is read before the first message comes is told to `progress`.
    """
    from services.bus import History
    from services.keys import KeyRing
    from services.replay import STORE, ArchiveSource, StreamSource

    kind, _, stream = name.partition(":")

    def reading(done: int) -> None:
        what, unit = ("verifying", "messages") if kind == "archive" else ("reading", "entries")
        progress.update(done, what=f"{what} the {kind}", unit=unit)

    if name == str(STORE):
        yield STORE
    elif kind == "stream" and stream and agency is not None:
        url, settings = agency.settings.redis_url_required, agency.settings.bus
        async with History.open(url, settings=settings) as history:
            yield await StreamSource.open(agency, history, stream, reading=reading)
    elif kind == "archive" and stream:
        ring = KeyRing.load(session.settings.keys_folder)
        yield await ArchiveSource.open(store, ring, Path(stream), reading=reading)
    else:
        raise RejectedError("NB-6031", value=name)


@asynccontextmanager
async def _sink(
    agency: "Agency | None", target: "Target", maxlen: int | None
) -> "AsyncIterator[Sink | None]":
    """Open what envelopes are written to; None where none are."""
    from services.bus import History
    from services.replay import Place, StreamSink, opened
    from services.replay.sink import ENTRIES_MAX

    if target.stream is not None:
        assert agency is not None
        url, settings = agency.settings.redis_url_required, agency.settings.bus
        async with History.open(url, settings=settings) as history:
            yield StreamSink(history, target.stream, maxlen or ENTRIES_MAX)
    elif target.place in (Place.STDOUT, Place.FILE):
        with opened(target) as sink:
            yield sink
    else:
        yield None


def described(plan: "Plan") -> dict[str, object]:
    """Return a plan as data."""
    return {
        "plan_id": plan.plan_id,
        "state": plan.stands,
        "from": plan.source,
        "to": str(plan.target),
        "since": plan.selection.since,
        "until": plan.selection.until,
        "selects": plan.selection.written(),
        "events": plan.counts.events,
        **asdict(plan.counts),
        "counts": asdict(plan.counts),
        "offices": {office: asdict(counts) for office, counts in plan.offices.items()},
        "changes": plan.changes,
        "needs_approval": plan.needs_approval,
        "approved_by": plan.approved_by,
        "approved_at": plan.approved_at,
        "made_by": plan.made_by,
        "made_at": plan.made_at,
        "expires_at": plan.expires_at,
        "begun_at": plan.begun_at,
        "ran_at": plan.ran_at,
        "done": plan.done.events,
        "written": plan.written,
    }


def event_item(examined: "Examined") -> dict[str, object]:
    """Return one event as data: how it stands, and what it would change."""
    message, finding = examined.message, examined.finding
    differences = [asdict(each) for each in finding.differences]
    return {
        "standing": finding.standing,
        "kind": message.kind,
        "direction": message.direction,
        "notice_id": message.notice_id,
        "revision": message.revision,
        "office": examined.office,
        "stream": message.stream,
        "sequence": message.sequence,
        "message_id": message.message_id,
        "at": message.at,
        "cause": finding.cause,
        "differences": differences,
        "differs": finding.cause or "; ".join(map(_difference, differences)),
    }


def _difference(said: dict[str, object]) -> str:
    return f"{said['field']}: {readable(said['before'])} -> {readable(said['after'])}"


def people(planned: "Planned", *, archives: "Sequence[Path]" = ()) -> list[str]:
    """Return a plan as people read it."""
    plan = planned.plan
    counts = plan.counts
    if not counts.events:
        return [
            f"Nothing is selected: no message from {plan.source} fits ({plan.selection}).",
            f"  plan {plan.plan_id} is empty; widen the selection and plan again",
        ]
    lines = [
        f"Plan {plan.plan_id} · {counts.events:,} events in order · from {plan.source}"
        f" · to {plan.target} · holds until {readable(plan.expires_at)}",
        f"  of messages {_between(plan.selection)}",
        f"  {counts.same:>8,} same       no effect",
        f"  {counts.new:>8,} new        would be added",
        f"  {counts.changed:>8,} changed    would be put right",
        f"  {counts.blocked:>8,} blocked    cannot be replayed",
    ]
    shown = list(plan.offices.items())[:OFFICES_SHOWN]
    lines += [
        f"  {office}: {each.same:,} same, {each.new:,} new, {each.changed:,} changed,"
        f" {each.blocked:,} blocked"
        for office, each in shown
    ]
    if len(plan.offices) > len(shown):
        lines.append(f"  and {len(plan.offices) - len(shown)} further offices (-o json)")
    if planned.shadowed is not None:
        lines.append(
            f"  {planned.shadowed.compared:,} rows made again and compared,"
            f" {planned.shadowed.differing:,} values differ"
        )
    if plan.needs_approval:
        lines.append(
            f"  more than {plan.approval_above:,}: a second person has to look and say"
            f" noticebus replay approve {plan.plan_id} --reason WHY"
        )
    given = f" --confirm {plan.changes}" if plan.changes else ""
    given += "".join(f" --archive {each}" for each in archives)
    return [*lines, f"  next: noticebus replay run {plan.plan_id} --reason WHY{given}"]


def _between(selection: "Selection") -> str:
    """Return the time that is selected, as it was when it was planned."""
    since = "" if selection.since is None else f"from {readable(selection.since)} "
    return f"{since}until {readable(selection.until)}"


def ran_item(ran: "Ran") -> Item:
    """Return what a run did as data."""
    return {
        "plan_id": ran.plan.plan_id,
        "state": ran.plan.state,
        "to": str(ran.plan.target),
        "events": ran.counts.events,
        **asdict(ran.counts),
        "applied": ran.applied,
        "written": ran.written,
        "missing": ran.missing,
        "resumed": ran.resumed,
    }


def ran_people(ran: "Ran") -> list[str]:
    """Return what a run did as people read it."""
    counts, plan = ran.counts, ran.plan
    lines = [
        f"{'✓' if plan.state == 'done' else '…'} replay {plan.plan_id} {plan.state}:"
        f" {counts.events:,} events, {counts.new:,} new, {counts.changed:,} changed,"
        f" {counts.same:,} same, {counts.blocked:,} blocked"
        + (f", {ran.written:,} envelopes written" if ran.written else ""),
        "  nothing was sent again, no clock restarted, nothing counts as use",
    ]
    if plan.state == "done" and (other := _otherwise(plan.counts, counts)):
        lines.append(f"! since it was planned: {other}")
    if ran.missing:
        lines.append(
            f"! {ran.missing:,} of the {plan.counts.events:,} planned events did not come:"
            f" {plan.source} does not hold them any more"
        )
    if plan.state == "paused":
        lines.append("  go on with the same command; what was written is kept")
    return lines


def _otherwise(planned: "Counts", ran: "Counts") -> str:
    """Return which counts of a run are not those of its plan."""
    before, after = asdict(planned), asdict(ran)
    return ", ".join(
        f"{before[name]:,} {name} -> {after[name]:,}"
        for name in before
        if before[name] != after[name]
    )


def saved_item(saved: "Saved") -> Item:
    """Return a saved selection as data."""
    return {
        "name": saved.name,
        "from": saved.source,
        "selects": {
            **saved.selection.written(),
            **{end: f"{each} ago, when it is planned" for end, each in saved.ages.items()},
        },
        "saved_by": saved.saved_by,
        "saved_at": saved.saved_at,
    }
