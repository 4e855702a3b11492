"""What messages do is on record under the names that the times of records are judged by."""

from services.exchange.effects import EFFECTS
from services.hhs import casework
from services.ice import effects


def test_every_effect_of_a_message_is_known_by_its_name() -> None:
    at_hhs = {f"case.{event}" for event in casework._EVENTS.values()}

    assert at_hhs | set(effects._ACTIONS.values()) == EFFECTS
