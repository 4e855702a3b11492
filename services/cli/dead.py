"""Read what was set aside, and redrive it: the recipient's side of what could not be taken."""

import re
from collections import defaultdict
from typing import TYPE_CHECKING, Annotated

import typer

from schemas.errors import wordings
from services.cli.everywhere import noun
from services.cli.exits import ExitCode
from services.cli.output import Column, Item
from services.cli.session import Session, session_of

if TYPE_CHECKING:
    from services.exchange.agency import Agency
    from services.exchange.dead import Redriven
    from services.exchange.store.dead import Attempt, DeadLetter

app = noun("Read what was set aside, and redrive it.")

STATES = ("open", "redriven", "discarded", "refused", "all")
COLUMNS = [
    Column("dead_id", "DEAD LETTER"),
    Column("state"),
    Column("cause"),
    Column("stream"),
    Column("authentic", "SIGNED"),
    Column("arrivals", right=True),
    Column("first_at", "FIRST"),
    Column("last_at", "LAST"),
]

StateOption = Annotated[
    str, typer.Option(help="open, redriven, discarded, refused or all.", metavar="STATE")
]
CauseOption = Annotated[str | None, typer.Option(help="Only this cause.", metavar="NB-nnnn")]


@app.command("list")
def list_(
    ctx: typer.Context,
    *,
    state: StateOption = "open",
    cause: CauseOption = None,
    groups: Annotated[bool, typer.Option("--groups", help="One row a cause.")] = False,
    limit: Annotated[int, typer.Option(min=1, max=100_000)] = 1_000,
) -> None:
    """List dead letters, newest first."""
    session = session_of(ctx)
    letters = _letters(session, state, cause, limit)
    if groups:
        session.emit(
            _grouped(letters),
            schema="dead.groups",
            columns=[
                Column("cause"),
                Column("schema_version", "SCHEMA"),
                Column("count", right=True),
                Column("first_at", "FIRST"),
                Column("last_at", "LAST"),
                Column("words", "WHAT IT MEANS"),
            ],
            empty="Nothing was set aside.",
        )
        return
    session.emit(
        [_item(letter) for letter in letters],
        schema="dead.list",
        columns=COLUMNS,
        empty="Nothing was set aside."
        if state == "all"
        else f"No dead letter is {state}. --state all shows every one.",
    )


@app.command()
def show(
    ctx: typer.Context,
    dead_id: Annotated[str, typer.Argument(metavar="ID", help="Or the beginning of it.")],
) -> None:
    """Show one dead letter: cause, what to do about it, and each attempt."""
    from services.exchange import dead

    session = session_of(ctx)

    async def work(agency: "Agency") -> "tuple[DeadLetter, list[Attempt]]":
        return await dead.show(agency, dead_id)

    letter, attempts = session.with_agency(work)
    words = wordings().get(letter.cause)
    item = {
        **_item(letter),
        "fix": words.fix if words else None,
        "field": letter.field,
        "entry_id": letter.entry_id,
        "bytes": len(letter.envelope),
        "bytes_sha256": letter.bytes_hash,
        "attempts": [
            {"number": each.number, "cause": each.cause, "failed_at": each.failed_at}
            for each in attempts
        ],
    }
    session.emit_one(item, schema="dead.show")


@app.command()
def redrive(
    ctx: typer.Context,
    *,
    ids: Annotated[
        list[str] | None, typer.Argument(metavar="[ID]...", help="Or the beginnings of them.")
    ] = None,
    reason: Annotated[str, typer.Option(help="Why it will work now; it is on record.")],
    cause: CauseOption = None,
    everything: Annotated[bool, typer.Option("--all", help="Every open one.")] = False,
) -> None:
    """Try the same bytes again, as if they had just arrived; what is taken is receipted."""
    session = session_of(ctx)
    if not ids and not cause and not everything:
        raise session.misused("name dead letters, or use --cause or --all")
    letters = _chosen(session, ids or [], cause)
    if len(letters) > 1:
        session.confirm(f"Redrive {len(letters)} messages?")
    results = _redrive(session, letters, reason)
    done = [each for each in results if each.state == "redriven"]
    session.emit(
        [{"dead_id": each.dead_id, "state": each.state, "cause": each.cause} for each in results],
        schema="dead.redrive",
        columns=[Column("dead_id", "DEAD LETTER"), Column("state"), Column("cause")],
        empty="No open dead letter fits; nothing was redriven.",
    )
    if len(done) < len(results):
        session.remark(f"{len(done)} of {len(results)} taken; the others stay open.")
        raise typer.Exit(ExitCode.PARTLY_DONE if done else ExitCode.FAILED)


def _letters(session: Session, state: str, cause: str | None, limit: int) -> "list[DeadLetter]":
    from services.exchange import dead

    if state not in STATES:
        raise session.misused(f"--state is one of {', '.join(STATES)}")

    async def work(agency: "Agency") -> "list[DeadLetter]":
        return await dead.listed(
            agency, state=None if state == "all" else state, cause=cause, limit=limit
        )

    return session.with_agency(work)


def _chosen(session: Session, ids: list[str], cause: str | None) -> "list[DeadLetter]":
    from services.exchange import dead

    if not ids:
        # In the order they came, so that what waits for one of them finds it taken.
        return sorted(_letters(session, "open", cause, 100_000), key=lambda letter: letter.first_at)

    async def work(agency: "Agency") -> "list[DeadLetter]":
        return [(await dead.show(agency, dead_id))[0] for dead_id in ids]

    return session.with_agency(work)


def _redrive(session: Session, letters: "list[DeadLetter]", reason: str) -> "list[Redriven]":
    from services.cli.effects import delivery_for
    from services.exchange import dead

    async def work(agency: "Agency") -> "list[Redriven]":
        delivery = delivery_for(agency)
        results = []
        with session.progress("redriving", unit="messages", total=len(letters)) as progress:
            for letter in letters:
                results.append(
                    await dead.redrive(delivery, letter, actor=session.actor, reason=reason)
                )
                progress.advance()
        return results

    return session.with_agency(work)


def _item(letter: "DeadLetter") -> dict[str, object]:
    words = wordings().get(letter.cause)
    return {
        "dead_id": letter.dead_id,
        "state": letter.state,
        "cause": letter.cause,
        "words": _in_general(words.sentence) if words else None,
        "stream": letter.stream,
        "authentic": letter.authentic,
        "schema_version": letter.schema_version,
        "message_id": letter.message_id,
        "notice_id": letter.notice_id,
        "sequence": letter.sequence,
        "arrivals": letter.arrivals,
        "first_at": letter.first_at,
        "last_at": letter.last_at,
    }


def _in_general(sentence: str) -> str:
    """Return an error's sentence without the values that the one case had: they are not kept."""
    return re.sub(r"\{\w+\}", "…", sentence)


def _grouped(letters: "list[DeadLetter]") -> list[Item]:
    groups: dict[tuple[str, str | None], list[DeadLetter]] = defaultdict(list)
    for letter in letters:
        groups[letter.cause, letter.schema_version].append(letter)
    return [
        {
            "cause": cause,
            "schema_version": version,
            "count": len(some),
            "first_at": min(letter.first_at for letter in some),
            "last_at": max(letter.last_at for letter in some),
            "words": _in_general(wordings()[cause].sentence) if cause in wordings() else None,
        }
        for (cause, version), some in sorted(groups.items(), key=lambda group: -len(group[1]))
    ]
