"""The HHS side's processes: the exchange, with the case work that a notice begins."""

from collections.abc import Collection

from services.exchange import process
from services.exchange.agency import Agency
from services.exchange.effects import Effects
from services.hhs.casework import CaseWork
from services.settings import Settings


def effects_of(_agency: Agency) -> Effects:
    """Return what HHS does with messages."""
    return CaseWork()


async def main(settings: Settings, only: Collection[str] = process.PARTS) -> None:
    """Run the parts named in `only` until SIGTERM or SIGINT."""
    await process.serve(settings, effects_of=effects_of, only=only)
