"""A trace as people read it: where the notice stands, what happened, and what holds."""

from dataclasses import asdict
from typing import TYPE_CHECKING

from services.cli import output
from services.cli.everywhere import Output
from services.cli.output import Column, names_of, readable
from services.cli.report import span
from services.cli.session import Session

if TYPE_CHECKING:
    from services.exchange.trace import Step, Trace

STEP_COLUMNS = [
    Column("notice_id"), Column("step"), Column("agency"), Column("at"), Column("verified")
]  # fmt: skip

# What each state means to whoever asks, and what comes next; {id} and {code} are filled in.
_STANDING = {
    "ice": {
        "to_confirm": "waits for a person here: noticebus notice confirm {id}, or notice dismiss",
        "dismissed": "a person decided that nothing is sent",
        "recorded": "waits to be sent; it goes out while `noticebus run ice` runs",
        "sent": "on its way; HHS has not answered yet",
        "receipted": "HHS' machine has it; no person there has taken it yet",
        "acknowledged": "a person at HHS has taken it",
        "closed": "HHS closed it",
        "dead": "HHS cannot take it, and a person there or here has to mend it",
        "withdrawn": "it was taken back",
    },
    "hhs": {
        "unowned": "it arrived, and nobody has taken it yet: noticebus queue take {id}",
        "taken": "a person here has taken it",
        "closed": "a person here closed it",
        "withdrawn": "ICE took it back",
        "held": "its first part has not arrived; it waits for that",
        "refused": "it could not be taken, and ICE was told so",
    },
}


def emit(session: Session, traced: "Trace") -> None:
    """Write a trace in the format asked for; a CSV has one row a step."""
    from services.exchange.trace import Step

    steps = [asdict(step) for step in traced.steps]
    item: dict[str, object] = {
        "notice_id": traced.notice_id,
        "state": traced.state,
        "state_code": traced.state_code,
        "holds": traced.holds,
        "origin": traced.origin,
        "size": traced.size,
        "set_aside": list(traced.set_aside),
    }
    chosen = output.chosen(session.given.output)
    if chosen is Output.CSV:
        rows = [{"notice_id": traced.notice_id, **step} for step in steps]
        session.emit(
            rows,
            schema="notice.trace",
            columns=STEP_COLUMNS,
            fields=("notice_id", *names_of(Step)),
            empty="",
        )
        return
    if chosen is Output.PLAIN:
        session.emit_one(item, schema="notice.trace")
        output.emit_text("")
        session.emit(steps, schema="notice.trace", columns=STEP_COLUMNS, empty="")
        return
    people = [_standing(session.agency, traced), *_steps(traced), _proven(traced)]
    session.emit_one({**item, "steps": steps}, schema="notice.trace", people=people)
    for dead_id in traced.set_aside:
        session.remark(
            f"! A dead letter names this notice:"
            f" noticebus --agency {session.agency} dead show {dead_id}"
        )


def _standing(agency: str, traced: "Trace") -> str:
    state = traced.state or "not taken"
    words = _STANDING[agency].get(state, "nothing was made of it on this side")
    code = f" ({traced.state_code})" if traced.state_code else ""
    return f"{traced.notice_id}  {state}{code}: {words.format(id=traced.notice_id)}"


def _steps(traced: "Trace") -> list[str]:
    lines = []
    before: Step | None = None
    for number, step in enumerate(traced.steps, start=1):
        lines.append(_step(number, step, before))
        before = step
    return lines


def _step(number: int, step: "Step", before: "Step | None") -> str:
    later = f"+{span((step.at - before.at).total_seconds())}" if before else ""
    index = f"#{step.record_index}" if step.record_index is not None else "#-"
    mark = {"yes": "✓", "not yet": "…", "failed": "✗"}[step.verified]
    said = [
        f"rev {step.revision}" if step.revision else "",
        f"{step.stream} {step.sequence}" if step.stream else "",
        f"by {step.actor}" if step.actor else "",
        # That a message was taken in is what its step says already; a person's taking is another.
        step.result if step.result not in {"ok", "", "taken"} else "",
        step.reason or "",
        step.fault or "",
    ]
    parts = [
        f"{number:>2} {step.agency.upper():<3} {step.step:<20} {readable(step.at)} {later:>9}",
        f"{mark} {index:<7}",
        f"{step.kind or '':<15}",
        *[each for each in said if each],
    ]
    return "  ".join(parts).rstrip()


def _proven(traced: "Trace") -> str:
    proven = sum(step.verified == "yes" for step in traced.steps)
    waiting = sum(step.verified == "not yet" for step in traced.steps)
    mark = "✓" if traced.holds else "✗"
    former = sum(step.former is not None for step in traced.steps)
    later = f"; {waiting} not sealed yet" if waiting else ""
    ended = f"; {former} in a log that a restore ended" if former else ""
    under = f" under {traced.origin}, size {traced.size:,}" if traced.origin else ""
    return f"{mark} {proven} of {len(traced.steps)} steps verified{under}{ended}{later}"
