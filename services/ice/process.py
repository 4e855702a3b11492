"""The ICE side's processes: the exchange, with what ICE does when an answer of HHS arrives."""

from collections.abc import Collection

from services.exchange import process
from services.exchange.agency import Agency
from services.exchange.effects import Effects
from services.ice.effects import IceEffects
from services.settings import Settings


def effects_of(agency: Agency) -> Effects:
    """Return what ICE does with messages."""
    return IceEffects()


async def main(settings: Settings, only: Collection[str] = process.PARTS) -> None:
    """Run the parts named in `only` until SIGTERM or SIGINT."""
    await process.serve(settings, effects_of=effects_of, only=only)
