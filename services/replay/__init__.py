"""Run recorded messages again into a chosen place: plan first, look, then run.

    made = await plan(store, "hhs", selection=Selection(), target=Target.of("store"), actor="me")
    ran = await run(store, "hhs", made.plan, actor="me", reason="why", confirm=made.plan.changes)

A plan changes nothing: it says of each event whether the agency's projection lacks it, has it, has
it otherwise, or cannot have it. A run does what its plan showed or is refused, and it writes to its
place alone: no answer goes out again, no clock starts again, and no report counts it. To look at
events one by one, with memory that stays flat, for an hour at most:

    async for event in events(store, "hhs", selection=Selection().before(datetime.now(UTC))):
        print(event.message.notice_id, event.finding.standing, event.finding.differences)

Messages come from a `Source`: the store, a stream of the bus (`StreamSource`), an archive file
(`ArchiveSource`), or what implements the protocol. Who plans more than the policy's limit needs
somebody else to `approve`; a run is paused (`pause`) or cancelled (`cancel`) from any process, and
one that was paused runs on by the same call. `shadow` makes an agency's projections again from its
records and compares: proof that its state is a function of them.
"""

from services.replay.acts import approve, cancel, find, listed, pause
from services.replay.archived import ArchiveSource
from services.replay.places import Place, Target
from services.replay.planning import Planned, notice_named, plan
from services.replay.plans import Counts, Plan, State
from services.replay.running import Ran, run
from services.replay.saved import Saved, all_saved, save, saved
from services.replay.selection import DeadGroup, Selection, SequenceRange
from services.replay.shadow import Difference, Shadowed, shadow
from services.replay.sink import Sink, StreamSink, opened
from services.replay.sources import STORE, Batch, Source, Sourced
from services.replay.streamed import StreamSource
from services.replay.survey import Examined, events

__all__ = [
    "STORE",
    "ArchiveSource",
    "Batch",
    "Counts",
    "DeadGroup",
    "Difference",
    "Examined",
    "Place",
    "Plan",
    "Planned",
    "Ran",
    "Saved",
    "Selection",
    "SequenceRange",
    "Shadowed",
    "Sink",
    "Source",
    "Sourced",
    "State",
    "StreamSink",
    "StreamSource",
    "Target",
    "all_saved",
    "approve",
    "cancel",
    "events",
    "find",
    "listed",
    "notice_named",
    "opened",
    "pause",
    "plan",
    "run",
    "save",
    "saved",
    "shadow",
]
