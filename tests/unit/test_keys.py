"""The key ring: made once, readable by its owner alone, and shown to others as a party file."""

import json
import os
import stat
from concurrent.futures import ThreadPoolExecutor
from datetime import UTC, datetime, timedelta
from pathlib import Path

import pytest
from cryptography.hazmat.primitives.asymmetric import ec, ed25519, rsa
from cryptography.hazmat.primitives.serialization import Encoding, NoEncryption, PrivateFormat

from schemas import codes
from schemas.checkpoint import Verifier, sign_checkpoint, verify_checkpoint
from schemas.ending import Revocation, retire
from schemas.envelope import source_of
from schemas.errors import ConflictError, NotAllowedError, NotFoundError, RejectedError
from schemas.jose import thumbprint
from schemas.party import Party, fingerprint
from services.cli.doctor import expiring
from services.keys import PUT_AWAY, KeyRing
from services.keys.files import write_key
from services.settings import load

DOMAIN = "ice.noticebus.example"


@pytest.fixture
def folder(tmp_path: Path) -> Path:
    folder = tmp_path / "ice" / "keys"
    KeyRing.generate(folder, DOMAIN, "ice")
    return folder


def pem(key: rsa.RSAPrivateKey | ec.EllipticCurvePrivateKey | ed25519.Ed25519PrivateKey) -> bytes:
    return key.private_bytes(Encoding.PEM, PrivateFormat.PKCS8, NoEncryption())


def test_keys_are_for_their_owner_alone(folder: Path) -> None:
    assert folder.stat().st_mode & 0o777 == 0o700
    assert {path.stat().st_mode & 0o777 for path in folder.iterdir()} == {0o600}
    assert sorted(path.name for path in folder.iterdir()) == [
        "cosigner.pem",
        "encryption-1.pem",
        "log.pem",
        "ring.json",
        "signing-1.pem",
    ]
    assert [path.name for path in folder.parent.iterdir()] == ["keys"]


def test_ring_that_was_made_is_the_ring_that_is_loaded(tmp_path: Path) -> None:
    made = KeyRing.generate(tmp_path / "keys", DOMAIN, "ice")

    loaded = KeyRing.load(tmp_path / "keys")

    assert loaded.party() == made.party()
    assert loaded.signing.kid == thumbprint(made.signing.private.public_key())
    assert loaded.log_key.name == "ice.noticebus.example/noticebus/ice/1"
    assert (loaded.agency, loaded.domain, loaded.generation) == ("ice", DOMAIN, 1)


def test_generate_overwrites_nothing(folder: Path) -> None:
    before = {path.name: path.read_bytes() for path in folder.iterdir()}

    with pytest.raises(ConflictError) as caught:
        KeyRing.generate(folder, DOMAIN, "ice")

    assert caught.value.code == "NB-4031"
    assert {path.name: path.read_bytes() for path in folder.iterdir()} == before


def test_keys_go_into_an_empty_folder_that_is_there(tmp_path: Path) -> None:
    (tmp_path / "keys").mkdir(mode=0o755)

    KeyRing.generate(tmp_path / "keys", DOMAIN, "hhs")

    assert KeyRing.load(tmp_path / "keys").agency == "hhs"


def test_folder_that_cannot_be_made_is_named(tmp_path: Path) -> None:
    (tmp_path / "file").write_text("")

    with pytest.raises(RejectedError) as caught:
        KeyRing.generate(tmp_path / "file" / "keys", DOMAIN, "ice")

    assert caught.value.code == "NB-4034"


def test_missing_keys_are_not_found(tmp_path: Path) -> None:
    (tmp_path / "empty").mkdir(mode=0o700)

    for missing in (tmp_path / "nowhere", tmp_path / "empty"):
        with pytest.raises(NotFoundError) as caught:
            KeyRing.load(missing)
        assert caught.value.code == "NB-4030"


@pytest.mark.parametrize("name", [".", "log.pem", "signing-1.pem", "ring.json"])
@pytest.mark.parametrize("mode", [0o640, 0o604, 0o660])
def test_what_others_may_read_is_refused(folder: Path, name: str, mode: int) -> None:
    path = folder / name
    path.chmod(mode | 0o100 if name == "." else mode)

    with pytest.raises(NotAllowedError) as caught:
        KeyRing.load(folder)

    assert caught.value.code == "NB-4032"
    assert str(path) in caught.value.sentence


@pytest.mark.parametrize(
    ("name", "content"),
    [
        ("log.pem", b"no key"),
        ("log.pem", pem(ec.generate_private_key(ec.SECP256R1()))),
        ("cosigner.pem", b""),
        ("signing-1.pem", pem(ed25519.Ed25519PrivateKey.generate())),
        ("signing-1.pem", pem(ec.generate_private_key(ec.SECP384R1()))),
        ("encryption-1.pem", pem(rsa.generate_private_key(65537, 2048))),
        ("ring.json", b"{}"),
        ("ring.json", b"not JSON"),
        ("ring.json", b"[]"),
    ],
)
def test_file_that_is_no_such_key_is_named(folder: Path, name: str, content: bytes) -> None:
    (folder / name).write_bytes(content)

    with pytest.raises(RejectedError) as caught:
        KeyRing.load(folder)

    assert caught.value.code == "NB-4033"
    assert name in caught.value.sentence


@pytest.mark.parametrize("name", ["signing-1.pem", "encryption-1.pem", "log.pem", "cosigner.pem"])
def test_missing_file_is_named(folder: Path, name: str) -> None:
    (folder / name).unlink()

    with pytest.raises(RejectedError) as caught:
        KeyRing.load(folder)

    assert name in caught.value.sentence


def ended(folder: Path) -> KeyRing:
    """Prepare a signing key and let it take the old one's place."""
    ring = KeyRing.prepare(folder)
    assert ring.prepared is not None
    end = retire(
        ring.signing,
        ring.prepared,
        source=source_of(ring.domain, ring.agency),
        last={"{ice.hhs.live.0}:out": (1, 7)},
        at=datetime.now(UTC),
    )
    return KeyRing.end(folder, retired=[end])


def test_prepared_key_signs_once_the_old_one_has_ended(folder: Path) -> None:
    old = KeyRing.load(folder)
    file = old.party()

    ready = KeyRing.prepare(folder)

    assert ready.prepared is not None
    again = KeyRing.prepare(folder).prepared
    assert again is not None
    assert again.kid == ready.prepared.kid, "what is begun is gone on with"
    assert (ready.signing.kid, ready.party()) == (old.signing.kid, file)
    new = ended(folder)
    assert (new.signing.kid, new.prepared) == (ready.prepared.kid, None)
    assert [key.kid for key in new.signing_keys] == [new.signing.kid, old.signing.kid]
    party = Party.from_bytes(new.party())
    assert set(party.verify_keys()) == {new.signing.kid, old.signing.kid}
    assert party.signing_keys() == (new.signing.kid,)
    assert party.endings().keys() == {old.signing.kid}
    assert new.log_key.verifier == old.log_key.verifier
    assert {path.stat().st_mode & 0o777 for path in folder.iterdir()} == {0o600}
    same = KeyRing.end(folder, retired=new.retired)
    assert same.party() == new.party(), "the same end again changes nothing"


def test_a_ring_of_before_rotations_were_cut_in_two_signs_with_its_newest_key(folder: Path) -> None:
    (folder / "signing-2.pem").write_bytes((folder / "signing-1.pem").read_bytes())
    (folder / "signing-2.pem").chmod(0o600)

    assert KeyRing.load(folder).prepared is None
    assert len(KeyRing.load(folder).signing_keys) == 2


def test_whoever_is_cut_off_while_a_key_is_written_leaves_a_ring_that_works(folder: Path) -> None:
    signing = KeyRing.load(folder).signing.kid
    for part in ("signing-2.part", "encryption-2.part", "ring.part"):
        (folder / part).write_bytes(b"half a k")

    assert KeyRing.load(folder).signing.kid == signing
    assert ended(folder).signing.kid != signing
    assert len(KeyRing.add_encryption_key(folder).encryption_keys) == 2


def test_no_key_is_ever_written_over_another(folder: Path) -> None:
    before = (folder / "signing-1.pem").read_bytes()

    with pytest.raises(FileExistsError):
        write_key(folder / "signing-1.pem", b"another")

    assert (folder / "signing-1.pem").read_bytes() == before


def test_an_end_needs_a_key_that_signs_afterwards(folder: Path) -> None:
    ring = KeyRing.load(folder)
    stolen = Revocation(kid=ring.signing.kid, at=datetime.now(UTC))

    with pytest.raises(RejectedError, match="NB-4033"):
        KeyRing.end(folder, revoked=[stolen])

    KeyRing.prepare(folder)
    after = KeyRing.end(folder, revoked=[stolen])
    assert Party.from_bytes(after.party()).endings()[stolen.kid].revoked == stolen


def test_a_new_encryption_key_is_the_only_one_that_others_encrypt_to(folder: Path) -> None:
    old = KeyRing.load(folder)

    new = KeyRing.add_encryption_key(folder)

    party = Party.from_bytes(new.party())
    assert party.encryption_key().kid != old.encryption_keys[0].kid
    assert [key.use for key in party.jwks.keys] == ["sig", "enc"]
    assert new.decryption.keys() == {party.encryption_key().kid, *old.decryption}


def test_a_key_that_was_put_away_opens_files_and_no_message_until_it_is_brought_back(
    folder: Path,
) -> None:
    first = KeyRing.load(folder).encryption_keys[0]
    ring = KeyRing.add_encryption_key(folder)
    newest = ring.encryption_keys[0]
    party = ring.party()

    away = KeyRing.put_away(folder, [first.kid, newest.kid])

    assert away.decryption.keys() == {newest.kid}, "the newest stays, whoever names it"
    assert away.opening_files().keys() == {newest.kid, first.kid}
    assert away.party() == party, "others are told nothing new"
    assert KeyRing.put_away(folder, [first.kid]).decryption.keys() == {newest.kid}
    place = folder / PUT_AWAY
    assert stat.S_IMODE(place.stat().st_mode) == 0o700
    [file] = place.iterdir()
    assert stat.S_IMODE(file.stat().st_mode) == 0o600
    # A further key has a name of its own, and one that is kept elsewhere is missed by files alone.
    third = KeyRing.add_encryption_key(folder).encryption_keys[0]
    assert (folder / "encryption-3.pem").exists()
    elsewhere = file.rename(folder.parent / "kept.pem")
    assert KeyRing.load(folder).opening_files().keys() == {newest.kid, third.kid}
    elsewhere.rename(file)
    file.chmod(0o640)
    with pytest.raises(NotAllowedError, match="NB-4032"):
        KeyRing.load(folder).opening_files()
    file.chmod(0o600)

    back = KeyRing.bring_back(folder)

    assert [key.kid for key in back.encryption_keys] == [third.kid, newest.kid, first.kid]
    assert not list(place.iterdir())


def test_a_move_that_was_cut_off_is_completed_and_no_key_is_lost(folder: Path) -> None:
    first = KeyRing.load(folder).encryption_keys[0]
    KeyRing.add_encryption_key(folder)
    path, place = folder / "encryption-1.pem", folder / PUT_AWAY
    place.mkdir(mode=0o700)
    # Linked there, and not gone here yet.
    (place / path.name).hardlink_to(path)

    assert first.kid not in KeyRing.put_away(folder, [first.kid]).decryption
    assert KeyRing.bring_back(folder).decryption.keys() >= {first.kid}
    other = ec.generate_private_key(ec.SECP256R1())
    (place / path.name).write_bytes(pem(other))
    (place / path.name).chmod(0o600)
    with pytest.raises(RejectedError, match="NB-4033"):
        KeyRing.put_away(folder, [first.kid])
    assert first.kid in KeyRing.load(folder).decryption


def test_tenth_rotation_is_newer_than_the_ninth(folder: Path) -> None:
    for _ in range(10):
        newest = ended(folder).signing

    assert KeyRing.load(folder).signing.kid == newest.kid
    assert (folder / "signing-11.pem").exists()
    assert len(Party.from_bytes(KeyRing.load(folder).party()).endings()) == 10


def test_party_file_keeps_its_fingerprint_until_something_changes(folder: Path) -> None:
    ring = KeyRing.load(folder)
    partitions = {"live": 1, "backlog": 2}

    party = ring.party(partitions=partitions)

    assert fingerprint(KeyRing.load(folder).party(partitions=partitions)) == fingerprint(party)
    assert fingerprint(ring.party(partitions={"live": 2})) != fingerprint(party)
    assert fingerprint(ended(folder).party(partitions=partitions)) != fingerprint(party)


def test_party_file_shows_the_public_halves_and_nothing_else(folder: Path) -> None:
    ring = KeyRing.load(folder)

    file = ring.party(
        partitions={"live": 1, "backlog": 2}, made_at=datetime(2026, 1, 1, tzinfo=UTC)
    )

    party = Party.from_bytes(file)
    assert party.to_bytes() == file
    assert party.encryption_key().kid == next(iter(ring.decryption))
    assert party.partitions.backlog == 2
    assert b'"d"' not in file
    assert b"PRIVATE" not in file
    note = sign_checkpoint(0, bytes(32), ring.log_key)
    assert verify_checkpoint(note, party.log_verifiers()).origin == ring.log_key.name
    assert Verifier.parse(party.cosigner_keys[0]).name == f"{party.origin_stem}/cosigner"


def test_doctor_names_keys_that_expire_and_renewals_that_are_half_done(tmp_path: Path) -> None:
    settings = load("ice", home=tmp_path)
    ring = KeyRing.generate(settings.keys_folder, DOMAIN, "ice")
    made = ring.made_at["signing"]
    end = made + timedelta(days=codes.policy().key_days)

    def told(at: datetime) -> list[str]:
        return [each.detail for each in expiring(settings, at)]

    assert told(end - timedelta(days=61)) == []
    assert told(end - timedelta(days=59)) == [
        f"the {use} key expires on {end:%Y-%m-%d}"
        for use in ("signing", "encryption", "log", "cosigner")
    ]
    assert all("expired on" in each for each in told(end))
    KeyRing.add_note_key(settings.keys_folder, "log")
    assert told(made) == ["the log key is being renewed"]
    # Copied, and the times of its files lost: the ring has noted them.
    for path in settings.keys_folder.glob("*.pem"):
        os.utime(path, (0, 0))
    assert told(made + timedelta(days=1)) == ["the log key is being renewed"]
    # A ring of before they were noted goes by its files.
    said = json.loads((settings.keys_folder / "ring.json").read_text())
    del said["made"]
    (settings.keys_folder / "ring.json").write_text(json.dumps(said))
    assert "the signing key expired on 1972-01-01" in told(made)


def test_two_that_change_a_ring_at_once_wait_for_each_other(folder: Path) -> None:
    """A running process completes a rotation at the same moment as the command that began it."""
    changes = [
        *[lambda: KeyRing.add_encryption_key(folder)] * 6,
        lambda: KeyRing.add_note_key(folder, "log"),
        lambda: KeyRing.add_note_key(folder, "cosigner"),
    ]
    with ThreadPoolExecutor(len(changes)) as pool:
        done = [pool.submit(change) for change in changes]
    for each in done:
        each.result()

    ring = KeyRing.load(folder)
    assert len(ring.encryption_keys) == 7
    assert ring.log_also is not None
    assert ring.cosigner_also is not None
    assert not list(folder.glob("*.part"))


def test_a_generation_goes_forward_alone(folder: Path) -> None:
    """A store that was restored twice, and the copy of a ring that knows of one time only."""
    newest = KeyRing.begin_generation(folder, 3)
    names = sorted(path.name for path in folder.iterdir())

    with pytest.raises(ConflictError) as caught:
        KeyRing.begin_generation(folder, 2)

    assert str(caught.value) == "NB-4035 generation 2 is not later than 3, which our keys have"
    assert caught.value.fix == "Use the newest copy of the key ring."
    assert sorted(path.name for path in folder.iterdir()) == names
    assert KeyRing.load(folder).log_key.name == newest.log_key.name
