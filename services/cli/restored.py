"""Backups, restores and losses as commands tell them: as data, and in words."""

from typing import TYPE_CHECKING

from services.cli.output import Item, readable

if TYPE_CHECKING:
    from services.backup.recovery import Recovered
    from services.backup.report import Report
    from services.backup.snapshot import Backup
    from services.backup.store.recovery import Lost

# What each cause asks of a person.
CAUSES = {
    "content": "its content is erased at the other agency too: the notice exists there alone",
    "work": "the other agency was told of work that is not known here: do it again or look it up",
    "nowhere": "nobody has these messages: what they said has to be found out from people",
    "unknown": "nobody said what was sent from here on: ask the other agency, use --seen",
}


# What `backup_item` returns, in its order.
BACKUP_FIELDS = (
    *("path", "made_at", "agency", "generation", "size", "revision", "bytes", "program"),
)


def backup_item(done: "Backup") -> dict[str, object]:
    """Return a backup as data."""
    about = done.header.about
    return {
        "path": done.path,
        "made_at": done.header.made_at,
        "agency": about.get("agency"),
        "generation": about.get("generation"),
        "size": about.get("size"),
        "revision": about.get("revision"),
        "bytes": done.file_bytes,
        "program": about.get("program"),
    }


def recovered_item(done: "Recovered | None") -> dict[str, object]:
    """Return what a file brought back as data; nulls without one."""
    if done is None:
        return {"recovered": None, "known": None, "lost": None, "asked": None}
    return {
        "recovered": done.recovered,
        "known": done.known,
        "lost": done.lost,
        "asked": done.asked,
    }


def recovered_people(done: "Recovered | None") -> list[str]:
    """Return what a file brought back in words."""
    if done is None:
        return ["! nobody said what was sent since the backup: it may go out a second time"]
    lines = [
        f"  {done.recovered:,} messages of ours came back, {done.known:,} were known",
        f"  {done.asked:,} messages of the other agency are asked for again",
    ]
    if done.lost:
        lines.append(f"! {done.lost:,} things were lost and wait for a person")
    return lines


def report_people(found: "Report") -> list[str]:
    """Return a report in words."""
    lines = []
    for each in found.restorations:
        state = (
            f"adopted {readable(each.adopted_at)}, generation {each.generation}"
            if each.adopted_at
            else "not adopted: nothing of it may change or leave"
        )
        lines.append(
            f"restored {readable(each.restored_at)} from a backup of"
            f" {readable(each.backup_made_at)} · {state}"
        )
    if not lines:
        return ["This store was never restored."]
    lines += [f"  {each.origin} ended at {each.size:,} records" for each in found.former]
    lines.append(
        f"  {found.recovered:,} messages of ours came back · {found.missing:,} of the other agency"
        f" still missing · {found.unanswered:,} unanswered"
    )
    lines += [
        f"! {str(each.lost_id)[:13]} {each.kind or 'messages'} {each.notice_id or each.stream}"
        f" {readable(each.said_at)}: {CAUSES[each.cause]}"
        for each in found.lost
    ]
    if not found.lost:
        lines.append("  nothing lost waits for a person")
    return lines


def lost_item(each: "Lost") -> Item:
    """Return one loss as data."""
    return {name: getattr(each, name) for name in type(each).__dataclass_fields__}
