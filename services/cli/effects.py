"""What each agency does with messages, for commands that hand a message to it."""

from typing import TYPE_CHECKING

from services.exchange.process import delivery_of
from services.hhs.process import effects_of as effects_of_hhs
from services.ice.process import effects_of as effects_of_ice

if TYPE_CHECKING:
    from services.exchange.agency import Agency
    from services.exchange.delivery import Delivery

EFFECTS = {"ice": effects_of_ice, "hhs": effects_of_hhs}


def delivery_for(agency: "Agency") -> "Delivery":
    """Return what takes messages at this agency, as its own processes would."""
    return delivery_of(agency, EFFECTS[agency.name](agency))
