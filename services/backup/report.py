"""What restores did to a store, and how far it has come since."""

from dataclasses import dataclass

from services.backup.store import adopting, recovery
from services.backup.store.adopting import FormerLog, Restoration
from services.backup.store.recovery import Lost
from services.exchange.store import standing
from services.ledger.store import Store


@dataclass(frozen=True, slots=True, kw_only=True)
class Report:
    """Restores, the logs they ended, what came back, what is still missing, what is lost."""

    restorations: list[Restoration]
    former: list[FormerLog]
    recovered: int
    missing: int
    unanswered: int
    lost: list[Lost]


async def look(database: Store) -> Report:
    """Return how a store stands after its restores."""
    async with database.transaction() as tx:
        stands = await standing.read(tx)
        return Report(
            restorations=await adopting.restorations(tx),
            former=await adopting.former_logs(tx),
            recovered=await recovery.recovered(tx),
            missing=stands.gap_sequences,
            unanswered=stands.unanswered,
            lost=await recovery.lost(tx),
        )
