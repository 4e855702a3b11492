"""Find out what is wrong, and how to fix it: one line a check, in the order things depend.

A check that needs what failed before it is left out, because it would only repeat it.
"""

import os
import shutil
import stat
from collections.abc import Iterator
from dataclasses import asdict, dataclass
from typing import TYPE_CHECKING

import typer

from schemas.errors import NoticeBusError
from services.cli import bus, output
from services.cli.everywhere import Output, verb
from services.cli.exits import ExitCode
from services.cli.output import Column
from services.cli.session import Session, nothing, session_of

if TYPE_CHECKING:
    from services.settings import Settings

app = verb()

DISK_FREE_SHARE_MIN = 0.1
MARKS = {"ok": "✓", "warning": "!", "problem": "✗"}


@dataclass(frozen=True, slots=True)
class Finding:
    """One check: `state` is ok, warning or problem; `fix` is there unless it is ok."""

    check: str
    state: str
    detail: str
    fix: str = ""


@app.command()
def doctor(ctx: typer.Context) -> None:
    """Check settings, keys, store, bus and exchange; exit 1 when there is a problem."""
    session = session_of(ctx)
    findings = list(_findings(session))
    problems = sum(finding.state == "problem" for finding in findings)
    if output.chosen(session.given.output) is Output.TABLE:
        for finding in findings:
            fix = f"  → {finding.fix}" if finding.fix else ""
            output.emit_text(
                output.printable(
                    f"{MARKS[finding.state]} {finding.check:<10} {finding.detail}{fix}"
                )
            )
    else:
        session.emit(
            [asdict(finding) for finding in findings],
            schema="doctor",
            columns=[Column("check"), Column("state"), Column("detail"), Column("fix")],
            empty="",
        )
    warnings = sum(finding.state == "warning" for finding in findings)
    session.remark(f"{problems} problems, {warnings} warnings")
    if problems:
        raise typer.Exit(ExitCode.FAILED)


def _findings(session: Session) -> Iterator[Finding]:
    settings = session.settings
    yield from _configured(settings)
    yield _disk(settings)
    keys = _keys(settings)
    yield keys
    try:
        # One thing after the other, because one that is away would hide what else is wrong.
        session.with_store(nothing)
    except NoticeBusError as error:
        yield _problem("store", error)
        return
    yield Finding("store", "ok", "answers, migrated")
    if keys.state == "problem":
        return
    try:
        seen = session.with_agency(bus.look, bus=True)
        trusted = session.with_agency(_peer_trusted)
    except NoticeBusError as error:
        yield _problem("bus", error)
        return
    yield Finding("bus", "ok", f"answers, {len(seen.outgoing)} streams out")
    yield trusted
    yield from _readers(seen)
    yield from _exchange(seen)


def _configured(settings: "Settings") -> Iterator[Finding]:
    from services.settings import unknown_variables

    where = "embedded" if settings.database_url is None else "named"
    yield Finding("settings", "ok", f"{settings.agency}, {settings.domain}, {where} servers")
    for variable in unknown_variables(os.environ):
        yield Finding(
            "settings", "warning", f"nothing reads {variable}", "See `noticebus config show`."
        )


def _disk(settings: "Settings") -> Finding:
    folder = settings.home.absolute()
    while not folder.exists():
        folder = folder.parent
    usage = shutil.disk_usage(folder)
    share = usage.free / usage.total
    detail = f"{share:.0%} free at {folder}"
    if share < DISK_FREE_SHARE_MIN:
        return Finding("disk", "warning", detail, "Free some space: the ledger only grows.")
    return Finding("disk", "ok", detail)


def _keys(settings: "Settings") -> Finding:
    from services.keys import KeyRing

    try:
        KeyRing.load(settings.keys_folder)
    except NoticeBusError as error:
        return _problem("keys", error)
    loose = [
        each.name
        for each in settings.keys_folder.iterdir()
        if each.is_file() and stat.S_IMODE(each.stat().st_mode) & 0o077
    ]
    if loose:
        return Finding(
            "keys",
            "problem",
            f"others on this machine can read {', '.join(sorted(loose))}",
            f"chmod 600 {settings.keys_folder}/*",
        )
    return Finding("keys", "ok", f"complete, in {settings.keys_folder}")


async def _peer_trusted(agency: object) -> Finding:
    from services.exchange.agency import Agency

    if not isinstance(agency, Agency) or agency.directory.newest is None:
        error = NoticeBusError("NB-4011")
        return Finding("party", "problem", error.sentence, error.fix)
    return Finding("party", "ok", f"{agency.peer} is trusted")


def _readers(seen: bus.Seen) -> Iterator[Finding]:
    unread = [
        str(row["stream"])
        for row in seen.streams()
        if row["direction"] == "in" and not row["consumers"]
    ]
    if unread:
        yield Finding(
            "readers",
            "problem",
            f"nobody reads {', '.join(unread)}",
            "Start our processes with `noticebus run`, or look why they ended.",
        )
    else:
        yield Finding("readers", "ok", f"all {len(seen.incoming)} streams in are read")


def _exchange(seen: bus.Seen) -> Iterator[Finding]:
    standing = seen.standing
    checks = [
        ("answers", standing.overdue, "answers are overdue", "`noticebus bus status`"),
        ("gaps", standing.gap_sequences, "sequences are missing", "`noticebus bus status`"),
        ("dead", standing.dead, "dead letters wait for a person", "`noticebus dead list`"),
        ("alarms", standing.alarms, "alarms are open", "`noticebus bus status`"),
    ]
    for check, count, what, look in checks:
        if count:
            yield Finding(check, "warning", f"{count:,} {what}", f"See {look}.")
        else:
            yield Finding(check, "ok", f"no {what}")


def _problem(check: str, error: NoticeBusError) -> Finding:
    return Finding(check, "problem", f"{error.code} {error.sentence}", error.fix)
