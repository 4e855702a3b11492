"""Replay a week: look at it, copy it, mend what differs, and watch it go on record.

    NOTICEBUS_DATABASE_URL=... python docs/examples/replay_week.py hhs "why" > week.ndjson

Standard output gets the week's envelopes, one JSON object a line; standard error what happens. The
store is that of the agency named, migrated; while its sealer runs, the end is seen on record too.
"""

import asyncio
import os
import sys
from contextlib import aclosing
from datetime import UTC, datetime, timedelta

from schemas.errors import ConflictError
from services import telemetry
from services.exchange.recorded import Standing
from services.ledger.store import Store
from services.replay import Ran, Selection, Target, events, opened, plan, run
from services.watch import Cursor, Turn, watch

ACTOR = "replay-week"
# What the plan showed is not so any more: a message came, or somebody changed what it derives.
STALE = "NB-6013"
ATTEMPTS_MAX = 3
WATCH_SECONDS = 30.0


async def look(store: Store, agency: str, week: Selection) -> None:
    """Say of each event that is not as it should be what a replay would change; changes nothing."""
    async with aclosing(events(store, agency, selection=week)) as found:
        async for event in found:
            if event.finding.standing is Standing.SAME:
                continue
            say(event.message.notice_id, event.finding.standing, event.finding.cause or "")
            for difference in event.finding.differences:
                say("  ", difference.field, difference.before, "->", difference.after)


async def copy(store: Store, agency: str, week: Selection, reason: str) -> Ran:
    """Write the week's envelopes to standard output, as they were signed."""
    made = await plan(store, agency, selection=week, target=Target.of("stdout"), actor=ACTOR)
    with opened(made.plan.target) as sink:
        return await run(store, agency, made.plan, actor=ACTOR, reason=reason, sink=sink)


async def mend(store: Store, agency: str, week: Selection, reason: str) -> Ran:
    """Let the store say what the week's messages say; a plan that went stale is made again."""
    for attempt in range(1, ATTEMPTS_MAX + 1):
        made = await plan(store, agency, selection=week, target=Target.of("store"), actor=ACTOR)
        say(f"plan {made.plan.plan_id}: {made.plan.changes} of {made.plan.counts.events} change")
        try:
            return await run(
                store, agency, made.plan, actor=ACTOR, reason=reason, confirm=made.plan.changes
            )
        except ConflictError as error:
            if error.code != STALE or attempt == ATTEMPTS_MAX:
                raise
            say("something changed since the plan was made; planning again")
    raise AssertionError("each attempt returns or raises")


async def follow(store: Store, agency: str, cursor: Cursor) -> Cursor:
    """Say what goes on record from a cursor on, until a replay has ended; returns how far it is."""
    try:
        async with (
            asyncio.timeout(WATCH_SECONDS),
            aclosing(watch(store, agency, after=cursor)) as lines,
        ):
            async for line in lines:
                cursor = line.cursor
                say(line.cursor, line.direction, line.state)
                if line.action == "replay.run":
                    break
    except TimeoutError:
        say("not on record yet: is the sealer running?")
    return cursor


async def present(store: Store, agency: str) -> Cursor:
    """Return the cursor of this moment: everything sealed so far lies behind it."""
    here: list[Cursor] = []

    def told(turn: Turn, cursor: Cursor, _waiting: int) -> None:
        if turn is Turn.LIVE:
            here.append(cursor)

    async with aclosing(watch(store, agency, follow=False, told=told)) as lines:
        async for _ in lines:
            pass
    return here[-1]


async def main(agency: str, reason: str) -> None:
    """Replay the last seven days of an agency."""
    # Our own telemetry goes to standard error, and says what a person must act on.
    telemetry.configure(agency=agency, process=ACTOR, level="ERROR")
    now = datetime.now(UTC)
    week = Selection(since=now - timedelta(days=7), until=now)
    async with await Store.open(os.environ["NOTICEBUS_DATABASE_URL"]) as store:
        cursor = await present(store, agency)
        await look(store, agency, week)
        copied = await copy(store, agency, week, reason)
        say(f"{copied.written} envelopes copied")
        mended = await mend(store, agency, week, reason)
        say(f"{mended.applied} mended, {mended.counts.same} were right")
        # Two replays end on record: the copy, and what mended the store.
        for _ in range(2):
            cursor = await follow(store, agency, cursor)
    say(f"go on with: noticebus --agency {agency} watch --after {cursor}")


def say(*words: object) -> None:
    """Tell people something, on standard error."""
    sys.stderr.write(" ".join(map(str, words)) + "\n")


if __name__ == "__main__":
    asyncio.run(main(*sys.argv[1:3]))
