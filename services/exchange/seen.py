"""The exchange and the bus, seen from one agency at one moment: what waits where, and who reads it.

Whether a process of ours lives is told by the lock that it holds for its name, never by Redis: a
server that restarts has forgotten since when a consumer is silent. The locks of the other agency
are in its own database, so of its processes nothing is known but when they last asked.
"""

from collections.abc import Collection, Mapping, Sequence
from dataclasses import dataclass, field

from services.bus import ConsumerStatus, GroupStatus, Publisher, group_status
from services.exchange import alone
from services.exchange.agency import Agency
from services.exchange.process import incoming_streams
from services.exchange.status import standing_of
from services.exchange.store import outgoing, published
from services.exchange.store.standing import Standing
from services.exchange.troubles import CONSUMER_IDLE_SECONDS_MAX


@dataclass(frozen=True, slots=True)
class Seen:
    """What was seen.

    `agency` is who looked, `living` the names of consumers that its living processes hold;
    `lengths` has the entries of each stream that is there, `belong` how many messages have to be in
    each of ours.
    """

    agency: str
    standing: Standing
    outgoing: Sequence[str]
    incoming: Sequence[str]
    groups: Sequence[GroupStatus]
    living: Collection[str] = ()
    lengths: Mapping[str, int] = field(default_factory=dict)
    belong: Mapping[str, int] = field(default_factory=dict)

    def alive(self, group: GroupStatus, consumer: ConsumerStatus) -> bool:
        """Say whether a process lives; of the other agency's, whether it asked lately."""
        if group.group == self.agency:
            return consumer.name in self.living
        return consumer.idle_seconds <= CONSUMER_IDLE_SECONDS_MAX

    def readers(self, group: GroupStatus) -> list[ConsumerStatus]:
        """Return the consumers that live and ask for entries."""
        return [
            consumer
            for consumer in group.consumers
            if self.alive(group, consumer) and consumer.idle_seconds <= CONSUMER_IDLE_SECONDS_MAX
        ]


async def look(agency: Agency) -> Seen:
    """Return what the store and the bus say now. Raises `UnavailableError` when one is away."""
    belong: dict[str, int] = {}
    async with agency.store.transaction() as tx:
        sending = [head.stream for head in await outgoing.heads(tx)]
        for stream in sending:
            out = await published.out(tx, stream)
            belong[stream] = out.messages if out is not None else 0
    reading = incoming_streams(agency)
    url, settings = agency.settings.redis_url_required, agency.settings.bus
    found: list[GroupStatus] = []
    lengths: dict[str, int] = {}
    async with Publisher.open(url, settings=settings) as publisher:
        for stream in (*sending, *reading):
            found += await group_status(url, stream, settings=settings)
            holding = await publisher.holding(stream)
            if holding is not None:
                lengths[stream] = holding.length
    return Seen(
        agency=agency.name,
        standing=await standing_of(agency.store),
        outgoing=sending,
        incoming=reading,
        groups=found,
        living=await alone.living(agency, alone.slots(agency.name)),
        lengths=lengths,
        belong=belong,
    )
