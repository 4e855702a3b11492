"""What each agency does with messages, for commands that hand a message to it."""

from services.exchange.agency import Agency
from services.exchange.delivery import Delivery
from services.exchange.process import delivery_of


def delivery_for(agency: Agency) -> Delivery:
    """Return what takes messages at this agency, as its own processes would."""
    if agency.name == "ice":
        from services.ice import process
    else:
        from services.hhs import process
    return delivery_of(agency, process.effects_of(agency))
