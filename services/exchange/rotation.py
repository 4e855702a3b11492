"""Renew our keys while messages are under way, so that both sides agree where the old one ends.

Everything that ends a signing key happens in one transaction that holds all our streams: the last
sequences are read, the end is stated and signed by both keys, our new party file is put on record.
A relay looks, with its stream held, whether its key has ended, and reads the ring again if so. The
ring is changed after the commit; whoever is cut off in between leaves it as it was, and the next
one to open the agency brings it up to date from the database.
"""

from datetime import UTC, datetime

from schemas.canonical import format_time, parse
from schemas.cosignature import cosigner
from schemas.ending import Revocation, retire
from schemas.envelope import source_of
from schemas.errors import ConflictError, NotFoundError, RejectedError
from schemas.party import Party
from services.exchange import parties
from services.exchange.agency import Agency
from services.exchange.beginnings import LENGTH_MIN
from services.exchange.renewing import Renewed, renew
from services.exchange.store import endings
from services.exchange.store import parties as store
from services.keys import LOG, KeyRing
from services.ledger.records import make_record
from services.ledger.store import Transaction, append


async def rotate_signing_key(agency: Agency, *, actor: str) -> None:
    """Sign with a new key from now on; the old one ends at the last sequence of each stream.

    `agency` has the new ring on return. Raises what `KeyRing.load`
    raises, `UnavailableError` when the store is away; then the old key goes on signing.
    """
    folder = agency.settings.keys_folder
    async with agency.store.transaction() as tx:
        last = await endings.hold_streams(tx)
        await parties.settle(tx, agency.settings)
        ring = KeyRing.prepare(folder)
        assert ring.prepared is not None
        end = retire(
            ring.signing,
            ring.prepared,
            source=source_of(ring.domain, ring.agency),
            last=last,
            at=datetime.now(UTC),
        )
        await parties.keep_retirement(tx, end)
        record = make_record(
            "keys.rotated",
            time=end.at,
            actor=actor,
            detail={"use": "signing", "kid": end.successor, "former": end.kid},
        )
        await append(tx, [record])
    await agency.reload()


async def rotate_encryption_key(agency: Agency, *, actor: str) -> None:
    """Have messages encrypted to a new key from now on; the former ones still open theirs."""
    async with agency.store.transaction() as tx:
        await endings.hold_streams(tx)
        ring = KeyRing.add_encryption_key(agency.settings.keys_folder)
        newest = ring.encryption_keys[0]
        record = make_record(
            "keys.rotated",
            time=ring.changed_at,
            actor=actor,
            detail={
                "use": "encryption",
                "kid": newest.kid,
                "former": ring.encryption_keys[1].kid,
            },
        )
        await append(tx, [record])
    await agency.reload()


async def rotate_note_key(agency: Agency, use: str, *, finish: bool, actor: str) -> None:
    """Renew the log or the cosigner key: begin, so that both sign, or `finish`.

    Between the two the other agency has to trust our new party file: whoever knows one of the keys
    verifies what both signed. Raises what `KeyRing.add_note_key` and `end_overlap` raise.
    """
    folder = agency.settings.keys_folder
    async with agency.store.transaction() as tx:
        await endings.hold_streams(tx)
        change = KeyRing.end_overlap if finish else KeyRing.add_note_key
        ring = change(folder, use)
        newest = ring.log_key.verifier if use == LOG else cosigner(ring.cosigner)
        record = make_record(
            "keys.rotated",
            time=ring.changed_at,
            actor=actor,
            detail={
                "use": use,
                "kid": newest.key_id.hex(),
                "step": "finished" if finish else "begun",
            },
        )
        await append(tx, [record])
    await agency.reload()


async def revoke_signing_key(
    agency: Agency, kid: str | None, *, since: datetime | None, actor: str, reason: str
) -> Renewed:
    """Distrust a signing key of ours, or the one in use, which a new one then replaces.

    What it signed and nobody answered goes again under new ids. `since` is when others may first
    have had it, now unless given: as evidence the key counts for what was cosigned before. Raises
    `NotFoundError` NB-3184 for a key that is not ours, `ConflictError` NB-3185 when it is revoked
    already, `RejectedError` NB-3186 for a time to come, NB-3250 for one before the key was there.
    """
    folder = agency.settings.keys_folder
    async with agency.store.transaction() as tx:
        await endings.hold_streams(tx)
        ring = await parties.settle(tx, agency.settings)
        now = datetime.now(UTC)
        end = Revocation(kid=_kid(ring, kid), at=since or now)
        if end.at > now:
            raise RejectedError("NB-3186", since=format_time(end.at))
        if since is not None:
            there = await _there_since(tx, ring, end.kid)
            # Whoever types the second that we print means all of it.
            if since < there.replace(microsecond=0):
                raise RejectedError(
                    "NB-3250",
                    since=format_time(since),
                    kid=end.kid,
                    there=format_time(there.replace(microsecond=0)),
                )
        if end.kid in {each.kid for each in ring.revoked}:
            raise ConflictError("NB-3185", kid=end.kid)
        if end.kid == ring.signing.kid:
            KeyRing.prepare(folder)
        await parties.keep_revocation(tx, end)
        done = await renew(tx, end.kid, now=now)
        record = make_record(
            "keys.revoked",
            time=now,
            actor=actor,
            text=reason,
            detail={
                "kid": end.kid,
                "since": format_time(end.at),
                "renewed": done.messages,
                "told_again": done.control,
            },
        )
        await append(tx, [record])
    await agency.reload()
    return done


async def _there_since(tx: Transaction, ring: KeyRing, kid: str) -> datetime:
    """Return when a signing key of ours was made, or was first in our party file if that is older.

    A folder of keys that was copied can be younger than what it holds.
    """
    named = [
        row.fingerprint
        for row in await parties.listed(tx)
        if row.agency == ring.agency and kid in Party.from_bytes(row.party).verify_keys()
    ]
    published = [
        each.recorded_at
        for each in await store.records(tx, "party.published")
        if parse(each.record)["detail"]["fingerprint"] in named
    ]
    return min([ring.key_made_at[kid], *published])


def _kid(ring: KeyRing, given: str | None) -> str:
    """Return the one signing key of ours whose id begins so; the one in use if None is given."""
    if given is None:
        return ring.signing.kid
    found = [key.kid for key in ring.signing_keys if key.kid.startswith(given)]
    # A key's id is a hash in Base64; how much of one names it is the same for every id.
    if len(found) != 1 or len(given) < LENGTH_MIN:
        raise NotFoundError("NB-3184", kid=given)
    return found[0]
