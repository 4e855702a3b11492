"""What is wrong with a stream or its group, in words."""

from collections.abc import Collection, Sequence
from datetime import UTC, datetime

from services.bus import GroupStatus

# A consumer that has not asked for so long does not read, whether its process lives or not.
CONSUMER_IDLE_SECONDS_MAX = 30.0
# What was given to a living consumer so long ago is stuck in it.
PENDING_SECONDS_MAX = 300.0


def entered_at(entry_id: str | None) -> datetime | None:
    """Return when an entry was added: the first half of its id is Redis' clock in milliseconds."""
    if entry_id is None:
        return None
    return datetime.fromtimestamp(int(entry_id.partition("-")[0]) / 1000, UTC)


def of_stream(
    groups: Sequence[GroupStatus], *, reader: str, entries: int | None, belong: int
) -> list[str]:
    """Say what is wrong with a stream that `reader` reads; `entries` None is "no such stream".

    `belong` is how many messages have to be in it, as its sender knows; 0 where that is unknown.
    """
    found = []
    if entries is None and belong:
        found.append(
            f"the stream is gone from the bus, and with it {belong:,} messages: they go again by"
            " themselves while our relay runs, or at once by `noticebus bus rebuild`"
        )
    elif entries is not None and entries < belong:
        found.append(
            f"{belong - entries:,} messages are missing on the bus: they go again by themselves"
            " while our relay runs, or at once by `noticebus bus rebuild`"
        )
    if reader not in {group.group for group in groups}:
        found.append(f"group {reader} is missing: {reader} has not read this stream yet")
    found += [
        f"group {group.group} is none of the exchange's: nothing waits for it"
        for group in groups
        if group.group != reader
    ]
    return found


def of_group(
    group: GroupStatus, *, living: Collection[str], ours: bool, claim_idle_seconds: float
) -> list[str]:
    """Say what is wrong with how a group is read; `living` are its consumers that are alive.

    Of a group that is not `ours` nobody here can tell a reader that hangs from one that ended.
    """
    found = []
    if not group.consumers:
        found.append("nobody has ever read by this group")
    elif not living:
        latest = min(consumer.idle_seconds for consumer in group.consumers)
        why = "no process that does lives" if ours else f"the last one asked {latest:,.0f} s ago"
        found.append(f"nobody reads: {why}")
    for consumer in group.consumers:
        alive = consumer.name in living
        silent = f"asked for nothing for {consumer.idle_seconds:,.0f} s"
        if alive and consumer.idle_seconds > CONSUMER_IDLE_SECONDS_MAX:
            found.append(f"consumer {consumer.name} is stuck: its process lives and {silent}")
        elif consumer.pending and not alive:
            what = (
                f"a living reader takes them over after {claim_idle_seconds:,.0f} s"
                if living
                else "they wait for a reader"
            )
            fate = "has ended" if ours else "is stuck or ended"
            found.append(
                f"consumer {consumer.name} {fate}: it holds {consumer.pending:,} entries and"
                f" {silent}; {what}"
            )
    held = group.oldest_idle_seconds
    if living and held is not None and held > PENDING_SECONDS_MAX:
        found.append(
            f"entry {group.oldest_pending_id} was given out {group.oldest_delivered} times and is"
            f" not done after {held:,.0f} s"
        )
    if group.lag is None:
        found.append("the lag cannot be told: entries were removed ahead of the group")
    return found
