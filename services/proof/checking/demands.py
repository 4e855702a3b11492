"""Say which member of a bundle does not hold, and why."""

from collections.abc import Iterator
from contextlib import contextmanager

from schemas.errors import EvidenceError, NoticeBusError


@contextmanager
def of(member: str) -> Iterator[None]:
    """Name the member in whatever its content breaks."""
    try:
        yield
    except NoticeBusError as error:
        if error.code in ("NB-3100", "NB-3104"):
            raise
        raise EvidenceError("NB-3100", member=member, rule=error.sentence) from error
    except (KeyError, TypeError, ValueError, AttributeError, IndexError) as error:
        # What is missing or of another type in JSON that somebody wrote by hand.
        rule = f"it has another form ({type(error).__name__})"
        raise EvidenceError("NB-3100", member=member, rule=rule) from error


def demand(holds: object, member: str, rule: str) -> None:
    """Raise `EvidenceError` NB-3100 unless something holds."""
    if not holds:
        raise EvidenceError("NB-3100", member=member, rule=rule)
