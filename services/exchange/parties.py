"""Party files: the public half of an agency, trusted by a person who compared its fingerprint.

Also what both halves agree on: which of our signing keys ended is in the key ring, in our party
file and in the database, and whichever of them was cut off from a change is brought up to date.
"""

from datetime import UTC, datetime

from schemas.canonical import canonical
from schemas.checkpoint import Verifier
from schemas.ending import Retirement, Revocation
from schemas.errors import EvidenceError, NotAllowedError
from schemas.party import Party, fingerprint
from services.exchange.store import endings
from services.exchange.store import parties as store
from services.exchange.store.parties import PartyRow
from services.keys import KeyRing
from services.ledger.records import make_record
from services.ledger.store import Store, Transaction, append, notify
from services.settings import Settings

PARTY_CHANNEL = "party"


async def listed(tx: Transaction) -> list[PartyRow]:
    """Return every party file this agency keeps, the newest of each agency first."""
    return await store.all_parties(tx)


async def own_log_keys(database: Store, agency: str) -> list[Verifier]:
    """Return the log keys of every party file that we ever published, each once."""
    async with database.transaction() as tx:
        return await published_log_keys(tx, agency)


async def published_log_keys(tx: Transaction, agency: str) -> list[Verifier]:
    """Return the log keys of every party file of this agency, ours or trusted, each once.

    Raises what `read` raises.
    """
    files = [read(row) for row in await listed(tx) if row.agency == agency]
    return list(dict.fromkeys(key for file in files for key in file.log_verifiers()))


def read(row: PartyRow) -> Party:
    """Return a party file that is kept here. Raises `EvidenceError` NB-3145 if it was changed."""
    if fingerprint(row.party) != row.fingerprint:
        raise EvidenceError("NB-3145", agency=row.agency, fingerprint=row.fingerprint)
    return Party.from_bytes(row.party)


async def register_own(tx: Transaction, own: bytes) -> bool:
    """Keep our own party file as the current one, on record when it is new; False if it was."""
    party = Party.from_bytes(own)
    return await _keep(tx, party, own, action="party.published", actor=None)


async def settle(tx: Transaction, settings: Settings) -> KeyRing:
    """Return our key ring, in agreement with the ends of keys that the database knows.

    Whoever was cut off in the middle of a rotation had committed the end and not changed the ring,
    and a restored database knows less than the ring. Raises what `KeyRing.load` raises.
    """
    retired: list[Retirement] = []
    revoked: list[Revocation] = []
    for ended, statement in await endings.kept(tx):
        if ended == "retired":
            retired.append(Retirement.model_validate_json(statement))
        else:
            revoked.append(Revocation.model_validate_json(statement))
    ring = KeyRing.end(settings.keys_folder, retired=retired, revoked=revoked)
    for retirement in ring.retired:
        if retirement not in retired:
            await keep_retirement(tx, retirement)
    for revocation in ring.revoked:
        if revocation not in revoked:
            await keep_revocation(tx, revocation)
    return ring


async def keep_retirement(tx: Transaction, end: Retirement) -> None:
    """Note that a signing key of ours was retired."""
    statement = canonical(end.model_dump(mode="json"))
    await endings.keep(tx, kid=end.kid, ended="retired", ended_at=end.at, statement=statement)


async def keep_revocation(tx: Transaction, end: Revocation) -> None:
    """Note that a signing key of ours was revoked."""
    statement = canonical(end.model_dump(mode="json"))
    await endings.keep(tx, kid=end.kid, ended="revoked", ended_at=end.at, statement=statement)


async def trust(
    tx: Transaction, file: bytes, *, peer: str, expected_fingerprint: str, actor: str
) -> bool:
    """Trust a party file of `peer` whose fingerprint a person compared; False if it was already.

    Nothing is numbered meanwhile, so that every message is encrypted to the key which was trusted
    when it got its sequence.

    Raises `RejectedError` for a file that is no party file, `NotAllowedError` when it belongs to
    somebody else or its fingerprint is not the expected one.
    """
    party = Party.from_bytes(file)
    if party.agency != peer:
        raise NotAllowedError("NB-4012", agency=party.agency, peer=peer)
    if fingerprint(file) != expected_fingerprint:
        raise NotAllowedError("NB-4013", found=fingerprint(file))
    await endings.hold_streams(tx)
    return await _keep(tx, party, file, action="party.trusted", actor=actor)


async def _keep(
    tx: Transaction, party: Party, file: bytes, *, action: str, actor: str | None
) -> bool:
    now = datetime.now(UTC)
    found = fingerprint(file)
    if not await store.trust(tx, agency=party.agency, fingerprint=found, party=file, now=now):
        return False
    await append(
        tx,
        [
            make_record(
                action, time=now, actor=actor, detail={"party": party.agency, "fingerprint": found}
            )
        ],
    )
    await notify(tx, PARTY_CHANNEL)
    return True
