"""What the ledger costs: sealing, the time until a record is under a checkpoint, verifying, export.

A million records are made up, without messages: their tree, checkpoints and names are verified, and
they are exported. Whole ledgers, with the signatures of all messages, are in `lived`. Others may
load the machine meanwhile, so processor seconds stand beside those of the clock.
"""

import asyncio
import resource
import time
from contextlib import suppress
from datetime import UTC, datetime
from pathlib import Path
from typing import Any

from services.embedded import PostgresServer
from services.ledger.export import export
from services.ledger.records import make_record
from services.ledger.sealer import Sealer
from services.ledger.store import Store, append, migrate
from services.ledger.verify import verify
from services.settings import SealerSettings
from tests.benches.ground import quantiles
from tests.ledgers import LOG_KEY, Answers, anchor_of, opened, some_records

AT_ONCE = 5_000
PER_SECOND = 50

# How long each record of a run waited: until the checkpoint over it was signed.
_WAITED = """
SELECT 1000 * extract(epoch FROM (
    SELECT sealed_at FROM checkpoint WHERE size > e.record_index ORDER BY size LIMIT 1
) - r.recorded_at)
FROM log_entry AS e JOIN record AS r USING (record_id)
WHERE e.record_index >= %s
"""


def run(folder: Path, *, records: int, seconds: int) -> dict[str, Any]:
    """Seal `records`, time single ones for `seconds`, verify and export everything."""
    with PostgresServer(folder / "made") as server:
        migrate(server.url, "ice")
        return asyncio.run(_run(server.url, folder / "log", records, seconds))


async def _run(url: str, log: Path, records: int, seconds: int) -> dict[str, Any]:
    async with opened(url) as store:
        for first in range(0, records, AT_ONCE):
            async with store.transaction(seconds=60) as tx:
                await append(tx, some_records(min(AT_ONCE, records - first), actor="R. Alvarez"))
        sealer = Sealer(
            store,
            log_key=LOG_KEY,
            settings=SealerSettings(),
            answer=Answers(),
            anchor=anchor_of(store),
        )
        began, spent = time.perf_counter(), time.process_time()
        while await sealer.seal_once() is not None:
            pass
        sealed_in, sealed_cpu = time.perf_counter() - began, time.process_time() - spent
        return {
            "records": records,
            "sealed_per_second": round(records / sealed_in),
            "sealed_per_cpu_second": round(records / sealed_cpu),
            "until_under_checkpoint_ms": await _waiting(store, sealer, records, seconds),
            "verify_tree_only": await _verified(store, tree_only=True),
            "verify_without_messages": await _verified(store, tree_only=False),
            "export": await _exported(store, log),
            "peak_memory_mb": round(resource.getrusage(resource.RUSAGE_SELF).ru_maxrss / 1024, 1),
        }


async def _waiting(store: Store, sealer: Sealer, first: int, seconds: int) -> dict[str, float]:
    """Commit a record at a time beside a running sealer; return how long they waited."""
    stop = asyncio.Event()
    sealing = asyncio.create_task(sealer.run(stop))
    for _ in range(PER_SECOND * seconds):
        async with store.transaction() as tx:
            await append(tx, [make_record("report.made", time=datetime.now(UTC))])
        with suppress(TimeoutError):
            await asyncio.wait_for(stop.wait(), 1 / PER_SECOND)
    stop.set()
    await sealing
    async with store.transaction(seconds=60) as tx:
        rows = await (await tx.execute(_WAITED, [first])).fetchall()
    return quantiles([float(row[0]) for row in rows])


async def _verified(store: Store, *, tree_only: bool) -> dict[str, float]:
    began, spent = time.perf_counter(), time.process_time()
    report = await verify(store, log_keys=[LOG_KEY.verifier], tree_only=tree_only)
    assert report.difference is None
    seconds, cpu = time.perf_counter() - began, time.process_time() - spent
    return {
        "seconds": round(seconds, 2),
        "cpu_seconds": round(cpu, 2),
        "records_per_second": round(report.size / seconds),
        "seconds_for_a_million": round(seconds * 1_000_000 / report.size, 1),
    }


async def _exported(store: Store, folder: Path) -> dict[str, float]:
    began, spent = time.perf_counter(), time.process_time()
    exported = await export(store, folder, entries=True, actor="bench")
    seconds, cpu = time.perf_counter() - began, time.process_time() - spent
    return {
        "seconds": round(seconds, 2),
        "cpu_seconds": round(cpu, 2),
        "records_per_second": round(exported.size / seconds),
        "seconds_for_a_million": round(seconds * 1_000_000 / exported.size, 1),
    }
