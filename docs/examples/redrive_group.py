"""Redrive a group of dead letters: look at what is set aside, ask what would happen, try it again.

    NOTICEBUS_HOME=... python docs/examples/redrive_group.py NB-2010 "why"

Works at HHS, with its keys and its store (NOTICEBUS_DATABASE_URL); nothing else has to run.
Standard output gets one JSON object for each letter that failed again, standard error the rest.
"""

import asyncio
import json
import sys

from services import telemetry
from services.exchange import dead, redrive
from services.exchange.agency import open_agency
from services.exchange.dead import Chosen
from services.exchange.forecast import Outcome, forecast
from services.exchange.process import delivery_of
from services.exchange.store.redrives import RedriveRow
from services.hhs.casework import CaseWork
from services.settings import load

ACTOR = "redrive-group"
FAILED_MAX = 1_000


async def main(cause: str, reason: str) -> None:
    """Redrive every open letter of a cause, if at least one of them would be taken."""
    telemetry.configure(agency="hhs", process=ACTOR, level="ERROR")
    async with open_agency(load("hhs")) as agency:
        which = Chosen(cause=cause)
        for group in await dead.groups(agency, which):
            say(f"{group.count} letters of {group.group_id}, the first of {group.first_at}")
        delivery = delivery_of(agency, CaseWork())
        letters = await redrive.chosen(agency, which)
        expected = await forecast(delivery, letters)
        say(f"would be taken: {expected.outcomes[Outcome.TAKEN]}, fail: {dict(expected.causes)}")
        if not expected.outcomes[Outcome.TAKEN]:
            return
        order = await redrive.begin(agency, letters, actor=ACTOR, reason=reason, rate=200)
        done = await redrive.run(delivery, order, progress=told)
        say(f"redrive {order}: {done.taken} taken, {done.failed} failed again")
        _, again = await redrive.failed(agency, order, limit=FAILED_MAX)
        for dead_id, why, group_id in again:
            line = json.dumps({"dead_id": str(dead_id), "cause": why, "group": group_id})
            sys.stdout.write(f"{line}\n")


def told(order: RedriveRow) -> None:
    """Say how far a redrive has come."""
    say(f"  {order.taken + order.held + order.failed + order.passed} of {order.asked}")


def say(*words: object) -> None:
    """Tell people something, on standard error."""
    sys.stderr.write(" ".join(map(str, words)) + "\n")


if __name__ == "__main__":
    asyncio.run(main(*sys.argv[1:3]))
