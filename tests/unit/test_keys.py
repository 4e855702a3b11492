"""The key ring: made once, readable by its owner alone, and shown to others as a party file."""

from datetime import UTC, datetime
from pathlib import Path

import pytest
from cryptography.hazmat.primitives.asymmetric import ec, ed25519, rsa
from cryptography.hazmat.primitives.serialization import Encoding, NoEncryption, PrivateFormat

from schemas.checkpoint import Verifier, sign_checkpoint, verify_checkpoint
from schemas.errors import ConflictError, NotAllowedError, NotFoundError, RejectedError
from schemas.jose import thumbprint
from schemas.party import Party, fingerprint
from services.keys import KeyRing

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


def test_rotated_key_signs_and_the_old_one_still_verifies(folder: Path) -> None:
    old = KeyRing.load(folder)

    new = KeyRing.rotate(folder)

    assert new.signing.kid != old.signing.kid
    assert [key.kid for key in new.signing_keys] == [new.signing.kid, old.signing.kid]
    assert set(Party.from_bytes(new.party()).verify_keys()) == {new.signing.kid, old.signing.kid}
    assert new.decryption.keys() == old.decryption.keys()
    assert new.log_key.verifier == old.log_key.verifier


def test_tenth_rotation_is_newer_than_the_ninth(folder: Path) -> None:
    for _ in range(9):
        KeyRing.rotate(folder)

    newest = KeyRing.rotate(folder).signing

    assert KeyRing.load(folder).signing.kid == newest.kid
    assert (folder / "signing-11.pem").exists()


def test_party_file_keeps_its_fingerprint_until_something_changes(folder: Path) -> None:
    ring = KeyRing.load(folder)
    partitions = {"live": 1, "backlog": 2}

    party = ring.party(partitions=partitions)

    assert fingerprint(KeyRing.load(folder).party(partitions=partitions)) == fingerprint(party)
    assert fingerprint(ring.party(partitions={"live": 2})) != fingerprint(party)
    assert fingerprint(KeyRing.rotate(folder).party(partitions=partitions)) != fingerprint(party)


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
