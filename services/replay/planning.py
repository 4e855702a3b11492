"""Make plans: what a replay would do, written down with an end to how long it holds.

Nothing has happened after a plan but the plan itself and its record in the ledger.
"""

from collections.abc import Callable
from dataclasses import dataclass
from datetime import UTC, datetime, timedelta
from uuid import UUID

import structlog
from uuid_utils.compat import uuid7

from schemas import codes
from schemas.errors import NotFoundError, RejectedError
from services.exchange.beginnings import beginning
from services.ledger.store import Store, append
from services.replay import acts
from services.replay.places import Place, Target
from services.replay.plans import Plan, State
from services.replay.selection import Selection
from services.replay.shadow import Shadowed, shadow
from services.replay.sources import STORE, Progress, Source
from services.replay.store import messages, plans
from services.replay.survey import Examined, survey

log = structlog.get_logger()

LIFETIME = timedelta(minutes=60)
FIRST_MAX = 100


@dataclass(frozen=True, slots=True)
class Planned:
    """A plan that was made, with the first events that are not the same.

    `shadowed` is what a comparison with everything made again found, for a plan to `shadow`.
    """

    plan: Plan
    first: tuple[Examined, ...]
    shadowed: Shadowed | None = None


async def plan(
    database: Store,
    agency: str,
    *,
    selection: Selection,
    target: Target,
    actor: str,
    source: Source = STORE,
    first_max: int = FIRST_MAX,
    progress: Progress | None = None,
    tell: Callable[[Examined], None] | None = None,
) -> Planned:
    """Look at what a replay would do, and keep that as a plan; `tell` is given every event.

    Raises `RejectedError` NB-6011 for a range that ends before it begins, NB-6121 for one that lies
    ahead and NB-6040 for a part compared with a shadow of the whole; `NotFoundError` for a stream
    (NB-6032) or a group of dead letters (NB-6033) that nobody knows here, or of which no message is
    known (NB-6102).
    """
    if target.place is Place.SHADOW and not (selection.everything and str(source) == str(STORE)):
        raise RejectedError("NB-6040")
    made_at = datetime.now(UTC)
    async with database.transaction() as tx:
        store_id = await messages.identity(tx)
        busy = await messages.under_way_seconds(tx)
    # Reversed by what was asked for, not by what is still being taken.
    selection = selection.before(made_at)
    selection = _settled(selection, messages.before_seconds(made_at, busy))
    await _known(database, selection)
    found = await survey(
        database,
        agency,
        selection,
        source=source,
        first_max=first_max,
        progress=progress,
        tell=tell,
    )
    shadowed = None
    if target.place is Place.SHADOW:
        shadowed = await shadow(database, agency)
    made = Plan(
        plan_id=uuid7(),
        state=State.PLANNED,
        source=str(source),
        target=target,
        selection=selection,
        store_id=store_id,
        source_digest=found.source_digest,
        target_digest=found.target_digest,
        counts=found.counts,
        offices=found.offices,
        made_at=made_at,
        expires_at=made_at + LIFETIME,
        made_by=actor,
        approval_above=codes.policy().replay_approval_above,
    )
    async with database.transaction() as tx:
        await plans.keep(tx, made)
        record = acts.record_of("replay.planned", made, made.counts, time=made_at, actor=actor)
        await append(tx, [record])
    log.info("replay planned", plan_id=str(made.plan_id), changes=made.changes)
    return Planned(made, found.first, shadowed)


async def notice_named(database: Store, text: str) -> UUID:
    """Return the notice that an id or its beginning names, among those that messages are about.

    Raises `NotFoundError` NB-6024, NB-6120 for no beginning of an id; `RejectedError` NB-7009 when
    there are several.
    """
    begins = beginning(text)
    async with database.transaction() as tx:
        found = await messages.notices(tx, begins)
    if not found:
        raise NotFoundError("NB-6024", value=text)
    if len(found) > 1:
        raise RejectedError("NB-7009", value=text, count="several", what="notices")
    return found[0]


def _settled(selection: Selection, end: datetime) -> Selection:
    """Return the selection without what is dated after `end`, empty where nothing is left."""
    if selection.since is not None and selection.since > end:
        return selection
    return selection.before(end)


async def _known(database: Store, selection: Selection) -> None:
    """Raise `NotFoundError` for a stream or a group of dead letters that was never here."""
    async with database.transaction() as tx:
        if selection.sequences:
            known = await messages.streams(tx)
            for each in selection.sequences:
                if each.stream not in known:
                    raise NotFoundError("NB-6032", stream=each.stream)
        for group in selection.dead:
            count, vouched_for = await messages.letters(tx, group.group_id)
            if not count:
                raise NotFoundError("NB-6033", group=group)
            if not vouched_for:
                raise NotFoundError("NB-6102", group=group, count=count)
