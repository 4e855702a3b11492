"""Keys are renewed while messages are under way, and both sides agree where the old one ends."""

from collections.abc import AsyncIterator, Callable
from dataclasses import replace
from pathlib import Path

import pytest
from uuid_utils.compat import uuid7

from schemas.canonical import parse
from schemas.checkpoint import verify_checkpoint
from schemas.envelope import read, seal
from schemas.errors import ConflictError, EvidenceError, RejectedError, UnavailableError
from schemas.jose import SigningKey, decrypt_jwe
from schemas.party import Party
from services.bus import Entry
from services.exchange import parties, rotation
from services.exchange.contents import verify_contents
from services.exchange.process import delivery_of
from services.keys import KeyRing
from services.ledger.store import log
from services.ledger.verify import verify as verify_ledger
from services.proof.archive import unpacked
from tests.agencies import Pair, a_notice, accept, answered, trust, two_agencies, until, value
from tests.bundles import built, ours, run_verify
from tests.steps import LIVE, TO_HHS, attributes_of, rows, sent, settled


@pytest.fixture
async def pair(home: Path, database: Callable[[str], str], redis_url: str) -> AsyncIterator[Pair]:
    async with two_agencies(home, database, redis_url) as pair:
        yield pair


def signed_by(entry: Entry) -> str:
    return read(entry.jws).kid


def again(pair: Pair, entry: Entry, key: SigningKey, *, sequence: int) -> Entry:
    """Return a new message of ICE at a sequence, under a key of ICE's."""
    draft = a_notice()
    attributes = replace(
        attributes_of(entry),
        id=uuid7(),
        subject=draft.notice_id,
        correlationid=draft.correlation_id,
        sequence=sequence,
        commitment=draft.commitment,
    )
    jws = seal(
        attributes,
        data=draft.body,
        signing=key,
        encrypt_to=pair.ice.directory.encrypt_to,
        salt=draft.salt,
    )
    return Entry(LIVE, f"9-{sequence}", jws, 1)


async def test_a_retired_key_counts_up_to_its_last_sequence_and_never_beyond(pair: Pair) -> None:
    old = pair.ice.ring.signing
    drafts = [a_notice() for _ in range(4)]
    before = await sent(pair, *drafts[:2])
    # The relay of a running process holds the old ring in memory while somebody else rotates.
    stale = replace_ring(pair)

    await rotation.rotate_signing_key(pair.ice, actor="tester")
    pair.ice.ring = stale
    after = (await sent(pair, *drafts[2:]))[2:]

    new = pair.ice.ring.signing
    assert new.kid != old.kid
    assert [signed_by(entry) for entry in (*before, *after)] == [old.kid] * 2 + [new.kid] * 2
    [ending] = Party.from_bytes(pair.ice.ring.party()).retired or ()
    assert (ending.kid, ending.successor) == (old.kid, new.kid)
    assert ending.last[LIVE].sequence == 2
    assert ending.last[TO_HHS].sequence == 0

    await trust(pair.hhs, pair.ice)
    delivery = delivery_of(pair.hhs, pair.hhs_noted)
    stolen = again(pair, after[0], old, sequence=3)
    beyond = again(pair, after[0], old, sequence=5)
    # What the old key signed up to its end is still taken after the end is known.
    await delivery.take([*before, stolen, beyond, *after])

    assert [taken.message_id for taken in pair.hhs_noted.taken] == [d.message_id for d in drafts]
    assert (
        await rows(pair.hhs, "SELECT cause, state, authentic FROM dead_letter")
        == [("NB-3181", "refused", False)] * 2
    )
    assert await value(pair.hhs, "SELECT sum(arrivals) FROM unauthenticated") == 2
    assert await value(pair.hhs, "SELECT highest FROM stream_in WHERE stream = %s", LIVE) == 4


def replace_ring(pair: Pair) -> KeyRing:
    return KeyRing.load(pair.ice.settings.keys_folder)


async def test_a_rotation_that_is_cut_off_anywhere_leaves_a_ring_that_signs(
    pair: Pair, monkeypatch: pytest.MonkeyPatch
) -> None:
    old = pair.ice.ring.signing

    async def cut_off(*_: object) -> None:
        raise UnavailableError("NB-4011")

    # Before the commit: the new key is there and signs nothing, and the next attempt uses it.
    with monkeypatch.context() as patch:
        patch.setattr(parties, "keep_retirement", cut_off)
        with pytest.raises(UnavailableError):
            await rotation.rotate_signing_key(pair.ice, actor="tester")
    await pair.ice.reload()
    prepared = pair.ice.ring.prepared
    assert prepared is not None
    [entry] = await sent(pair, a_notice())
    assert signed_by(entry) == old.kid

    # After the commit: the database knows the end, the ring learns it from whoever comes next.
    with monkeypatch.context() as patch:
        patch.setattr(type(pair.ice), "reload", cut_off)
        with pytest.raises(UnavailableError):
            await rotation.rotate_signing_key(pair.ice, actor="tester")
    assert KeyRing.load(pair.ice.settings.keys_folder).signing.kid == old.kid
    [_, entry] = await sent(pair, a_notice())
    assert signed_by(entry) == prepared.kid == pair.ice.ring.signing.kid
    file = await value(
        pair.ice, "SELECT party FROM party WHERE agency = 'ice' AND status = 'current'"
    )
    assert file == pair.ice.ring.party(partitions=pair.ice.settings.partitions)


async def test_an_end_that_one_of_the_two_keys_did_not_sign_is_no_party_file(pair: Pair) -> None:
    await rotation.rotate_signing_key(pair.ice, actor="tester")
    party = Party.from_bytes(pair.ice.ring.party())
    [end] = party.retired or ()

    later = end.model_copy(
        update={"last": {LIVE: end.last[LIVE].model_copy(update={"sequence": 9})}}
    )
    swapped = end.model_copy(update={"by_old": end.by_new})
    for wrong in (later, swapped):
        forged = party.model_copy(update={"retired": (wrong,)}).to_bytes()
        with pytest.raises(RejectedError, match="NB-4020"):
            Party.from_bytes(forged)


async def test_what_was_encrypted_to_a_former_key_is_opened_and_nothing_new_is(pair: Pair) -> None:
    former = pair.hhs.ring.encryption_keys[0]
    first, second = a_notice(), a_notice()
    [under_way] = await sent(pair, first)

    await rotation.rotate_encryption_key(pair.hhs, actor="tester")
    await trust(pair.ice, pair.hhs)
    [_, next_one] = await sent(pair, second)

    only = {former.kid: former}
    apu, apv = pair.ice.source.encode(), b"hhs"
    assert decrypt_jwe(data_of(under_way), only, apu=apu, apv=apv)
    with pytest.raises(RejectedError, match="NB-2022"):
        decrypt_jwe(data_of(next_one), only, apu=apu, apv=apv)
    await delivery_of(pair.hhs, pair.hhs_noted).take([under_way, next_one])
    assert [t.message_id for t in pair.hhs_noted.taken] == [first.message_id, second.message_id]


def data_of(entry: Entry) -> str:
    said: dict[str, str] = parse(read(entry.jws).payload)
    return said["data"]


async def test_while_the_log_key_is_renewed_whoever_knows_one_of_the_two_can_verify(
    pair: Pair, tmp_path: Path
) -> None:
    old = pair.hhs.ring.log_key.verifier
    with pytest.raises(ConflictError, match="NB-3188"):
        await rotation.rotate_note_key(pair.hhs, "log", finish=True, actor="tester")
    drafts = [a_notice() for _ in range(3)]
    async with pair.running():
        await rotation.rotate_note_key(pair.hhs, "log", finish=False, actor="tester")
        await rotation.rotate_note_key(pair.hhs, "cosigner", finish=False, actor="tester")
        new = pair.hhs.ring.log_key.verifier
        assert new.name == old.name
        # ICE does not know the new keys yet, and believes what the old ones sign beside them.
        await accept(pair.ice, drafts[0])
        await until(lambda: answered(pair.ice, drafts[:1]), "a receipt under both keys")
        note = await newest_note(pair)
        assert [verify_checkpoint(note, [key]).origin for key in (old, new)] == [old.name] * 2
        await until(lambda: settled(pair), "cosignatures under the old cosigner")

        await trust(pair.ice, pair.hhs)
        for use in ("log", "cosigner"):
            await rotation.rotate_note_key(pair.hhs, use, finish=True, actor="tester")
        await accept(pair.ice, drafts[1])
        await until(lambda: answered(pair.ice, drafts[:2]), "a receipt under the new key alone")
        await until(lambda: settled(pair), "cosignatures under the new cosigner")
    note = await newest_note(pair)
    assert verify_checkpoint(note, [new]).origin == new.name
    with pytest.raises(EvidenceError, match="NB-3052"):
        verify_checkpoint(note, [old])
    await rotation.rotate_note_key(pair.hhs, "log", finish=False, actor="tester")
    with pytest.raises(ConflictError, match="NB-3187"):
        await rotation.rotate_note_key(pair.hhs, "log", finish=False, actor="tester")

    # All that was signed on the way still verifies, here, there, and without our code.
    report = await verify_ledger(pair.hhs.store, log_keys=pair.hhs.ring.log_verifiers)
    assert report.difference is None
    assert (await verify_contents(pair.ice.store)).difference is None
    for agency in (pair.ice, pair.hhs):
        assert drafts[0].notice_id is not None
        _, path = await built(agency, tmp_path, drafts[0].notice_id)
        verdict = run_verify(path)
        assert verdict.code == 0, verdict.out
        assert ours(unpacked(path)) is None


async def newest_note(pair: Pair) -> str:
    async with pair.hhs.store.transaction() as tx:
        newest = await log.newest_checkpoint(tx)
    assert newest is not None
    return newest[1]
