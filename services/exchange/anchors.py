"""Our anchor under every key that may have signed it, and our store held to it.

The key ring has the keys of its generation, also where the database went back behind a renewal; the
database has those of all party files that we published, also of generations before. What none of
them signed is no anchor.
"""

from contextlib import suppress

from schemas.checkpoint import Verifier
from schemas.errors import EvidenceError, NoticeBusError
from services.exchange import parties
from services.keys import KeyRing
from services.ledger import anchor
from services.ledger.anchor import Anchor
from services.ledger.store import Transaction
from services.settings import Settings


async def own_anchor(tx: Transaction, settings: Settings, ring: KeyRing | None = None) -> Anchor:
    """Return this agency's anchor; without a `ring`, the one on disk is used if it can be read."""
    keys = list(_log_keys(settings) if ring is None else ring.log_verifiers)
    for row in await parties.listed(tx):
        # One that was changed vouches for no key; `ledger verify` names it.
        with suppress(EvidenceError):
            keys += parties.read(row).log_verifiers() if row.agency == settings.agency else ()
    return Anchor(settings.anchor_file, tuple(dict.fromkeys(keys)))


async def hold(tx: Transaction, found: Anchor) -> None:
    """Raise `EvidenceError` NB-3150 to NB-3153 unless the store continues its anchor."""
    if (error := (await anchor.look(tx, found)).error()) is not None:
        raise error


def _log_keys(settings: Settings) -> tuple[Verifier, ...]:
    try:
        return KeyRing.load(settings.keys_folder).log_verifiers
    except NoticeBusError:
        # Whoever needs the ring for more is told what is wrong with it; here it only adds keys.
        return ()
