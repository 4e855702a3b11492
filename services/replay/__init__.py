"""Run recorded messages again into a chosen place: plan first, look, then run.

    made = await plan(store, "hhs", selection=Selection(), target=Target.of("store"), actor="me")
    ran = await run(store, "hhs", made.plan, actor="me", reason="why", confirm=made.plan.changes)

A plan changes nothing: it says of each event whether the agency's projection lacks it, has it, has
it otherwise, or cannot have it. A run does what its plan showed or is refused, and it writes to the
projection alone: no answer goes out again, no clock starts again, and no report counts it.
"""

from services.replay.planning import Planned, find, notice_named, plan
from services.replay.running import Ran, run
from services.replay.selection import Counts, Place, Plan, Selection, Target
from services.replay.sink import Sink, opened
from services.replay.survey import Examined

__all__ = [
    "Counts",
    "Examined",
    "Place",
    "Plan",
    "Planned",
    "Ran",
    "Selection",
    "Sink",
    "Target",
    "find",
    "notice_named",
    "opened",
    "plan",
    "run",
]
