"""How often, by which office, how fast, and what happened next: the four questions of an auditor.

Coverage is sent of known missed, from the docket and by hand. An office without a known missed
hearing has no coverage, which is not the same as full coverage.
"""

from collections import Counter
from dataclasses import dataclass, fields
from datetime import UTC, datetime

from schemas import codes
from services.ledger.records import make_record
from services.ledger.store import Reading, Store, append
from services.reports import overdue, store
from services.reports.as_of import Progress, Then, knowing
from services.reports.store import OfficeCounts


@dataclass(frozen=True, slots=True, kw_only=True)
class OfficeUsage:
    """One line of the report."""

    counts: OfficeCounts
    overdue: int

    @property
    def coverage(self) -> float | None:
        """The share of known missed hearings of which HHS was told; None without any."""
        known = self.counts.known_missed
        return self.counts.sent / known if known else None

    @property
    def silent(self) -> bool:
        """Whether hearings were missed and not one notice went out."""
        return self.counts.known_missed > 0 and self.counts.sent == 0


@dataclass(frozen=True, slots=True, kw_only=True)
class Usage:
    """The report: offices, silent ones first, and their sum."""

    since: datetime | None
    until: datetime | None
    made_at: datetime
    policy: str
    offices: tuple[OfficeUsage, ...]
    total: OfficeUsage
    then: Then | None = None


async def usage(
    database: Store,
    *,
    since: datetime | None,
    until: datetime | None,
    actor: str,
    as_of: datetime | None = None,
    progress: Progress | None = None,
) -> Usage:
    """Count hearings missed between `since` and `until`; that it was asked is on record.

    With `as_of` as ICE knew it then. Raises what `knowing` raises.
    """
    now = datetime.now(UTC)
    then: Then | None = None
    if as_of is None:
        counts, late = await _counted(database, since, until, now)
    else:
        async with knowing(database, "ice", as_of, progress=progress) as known:
            counts, late = await _counted(known.reading, since, until, as_of)
            then = known.then
    async with database.transaction() as tx:
        await append(
            tx,
            [
                make_record(
                    "report.usage",
                    time=now,
                    actor=actor,
                    policy=codes.policy().version,
                    detail={
                        "since": "" if since is None else since.isoformat(),
                        "until": "" if until is None else until.isoformat(),
                        "as_of": "" if as_of is None else as_of.isoformat(),
                        "offices": len(counts),
                        "known_missed": sum(each.known_missed for each in counts),
                        "sent": sum(each.sent for each in counts),
                    },
                )
            ],
        )
    offices = [OfficeUsage(counts=each, overdue=late[each.office]) for each in counts]
    # Silence first: that is what the old inbox never showed.
    offices.sort(key=lambda each: (not each.silent, -each.counts.known_missed))
    return Usage(
        since=since,
        until=until,
        made_at=now,
        policy=codes.policy().version,
        offices=tuple(offices),
        total=OfficeUsage(counts=_sum(counts), overdue=sum(each.overdue for each in offices)),
        then=then,
    )


async def _counted(
    reading: Reading, since: datetime | None, until: datetime | None, now: datetime
) -> tuple[list[OfficeCounts], Counter[str]]:
    """Return counts by office, and how much is late in each."""
    late = Counter(each.office for each in await overdue.at_ice(reading, now=now))
    async with reading.transaction() as tx:
        return await store.usage(tx, since=since, until=until), late


def _sum(counts: list[OfficeCounts]) -> OfficeCounts:
    """Return the sum of all offices; medians of medians mean nothing and are left out."""
    numbers: dict[str, int] = {
        field.name: sum(getattr(each, field.name) for each in counts)
        for field in fields(OfficeCounts)
        if field.type in ("int", int)
    }
    absent = {
        field.name: None
        for field in fields(OfficeCounts)
        if field.name not in numbers and field.name != "office"
    }
    return OfficeCounts(office="TOTAL", **numbers, **absent)  # type: ignore[arg-type]  # by name
