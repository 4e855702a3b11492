"""Run mutations, one after the other, and count what was found and what was not."""

import random
import time
from collections import Counter
from collections.abc import Callable
from dataclasses import dataclass, field

import psycopg

from tests.faults.mutations.ground import TABLES, Ground, Grounds
from tests.faults.mutations.handed_out import Judged
from tests.faults.mutations.kinds import Mutation, mutate


@dataclass
class Tally:
    """What came of a run; `missed` were not found, `misplaced` were found in another place."""

    found: Counter[str] = field(default_factory=Counter)
    missed: list[str] = field(default_factory=list)
    misplaced: list[str] = field(default_factory=list)
    seconds: float = 0.0

    def count(self, judged: Judged | None) -> None:
        """Count one mutation; None stands for a draw that changed nothing."""
        if judged is None:
            return
        if judged.found is None:
            self.missed.append(f"{judged.title}: {judged.what}")
        elif not judged.placed:
            self.misplaced.append(f"{judged.title}: {judged.what}: {judged.found}")
        else:
            self.found[judged.title] += 1

    @property
    def tried(self) -> int:
        return self.found.total() + len(self.missed) + len(self.misplaced)


# One in so many is of what was handed out; it takes a tenth of the time of one of a store.
HANDED_OUT_SHARE = 0.4


async def run(
    grounds: Grounds,
    *,
    seed: int,
    mutations: int,
    seconds: float = float("inf"),
    handed_out_share: float = HANDED_OUT_SHARE,
    told: Callable[[int], None] | None = None,
) -> Tally:
    """Try `mutations` of them, or as many as fit into `seconds`; a share of what is handed out."""
    chance = random.Random(seed)
    tally = Tally()
    began = time.monotonic()
    for ground in grounds.stores:
        assert await ground.difference() is None
    grounds.handed_out.whole()
    while tally.tried < mutations and time.monotonic() - began < seconds:
        if told is not None and tally.tried % 500 == 0:
            told(tally.tried)
        if chance.random() < handed_out_share:
            tally.count(grounds.handed_out.mutate(chance))
            continue
        ground = chance.choice(grounds.stores)
        try:
            mutation = mutate(ground, chance)
        except (psycopg.IntegrityError, psycopg.DataError):
            # The schema itself forbids this one; a swap may have been cut off half way.
            for table in TABLES:
                ground.put_back(table)
            continue
        if mutation is not None:
            await _judge(ground, mutation, tally)
            ground.put_back("checkpoint" if mutation.kind == "fork" else mutation.table)
    for ground in grounds.stores:
        assert await ground.difference() is None, "a mutation was not undone"
    grounds.handed_out.whole()
    tally.seconds = time.monotonic() - began
    return tally


async def _judge(ground: Ground, mutation: Mutation, tally: Tally) -> None:
    found = await ground.difference()
    tally.count(
        Judged(
            f"{mutation.kind} {mutation.table}.{mutation.column}",
            f"{ground.agency.name} {mutation.keys}",
            None if found is None else f"{found.code} {found.sentence}",
            placed=found is not None and mutation.names(found),
        )
    )
