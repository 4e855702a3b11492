"""Signed notes: against the published vector of Go's sumdb/note, both ways, and hostile ones."""

import base64

import pytest
from cryptography.hazmat.primitives.asymmetric.ed25519 import Ed25519PrivateKey
from hypothesis import given, settings
from hypothesis import strategies as st

from schemas.checkpoint import (
    COSIGNATURE,
    ED25519,
    Checkpoint,
    Signer,
    Verifier,
    parse_checkpoint,
    sign_checkpoint,
    verify_checkpoint,
)
from schemas.errors import EvidenceError
from schemas.proof import SIZE_MAX
from tests.vectors.make import HHS_LOG, ed25519

# From golang.org/x/mod/sumdb/note: a key pair and a note that everybody's tools agree on.
GO_SEED = base64.b64decode("AYEKFALVFGyNhPJEMzD1QIDr+Y7hfZx09iUvxdXHKDFz")[1:]
GO_VKEY = "PeterNeumann+c74f20a3+ARpc2QcUPDhMQegwxbzhKqiBfsVkmqq/LDE4izWy10TW"
GO_TEXT = (
    "If you think cryptography is the answer to your problem,\n"
    "then you don't know what your problem is.\n"
)
GO_LINE = (
    "— PeterNeumann x08go/ZJkuBS9UG/SffcvIAQxVBtiFupLLr8pAcElZInNIuGUgYN1FFYC2pZSNXgKvqfqdng"
    "otpRZb6KE6RyyBwJnAM=\n"
)
# From C2SP: vkeys of both signature types; the second has a plus in its base64.
OTHER_VKEYS = [
    "example.com/foo+530d903a+AekyeRrm56hApGFkyQR4ZCbV54Id2LKaANYcrnKv3U2k",
    "TEST+7997405c+AQcC+FTVKf0jlTdHDY3rbevmnKxxPjigCXlVtGe6RIr6",
    "remora.n621.de+da77ade7+BOvN63jn/bLvkieywe8R6UYAtVtNbZpXh34x7onlmtw2",
]
C2SP_CHECKPOINT = (
    "example.com/behind-the-sofa\n"
    "20852163\n"
    "CsUYapGGPo4dkMgIAUqom/Xajj7h2fB2MPA3j2jxq2I=\n"
    "\n"
    "— example.com/behind-the-sofa Az3grlgtzPICa5OS8npVmf1Myq/5IZniMp+ZJurmRDeOoRDe4URYN7u5/Zhc"
    "yv2q1gGzGku9nTo+zyWE+xeMcTOAYQ8=\n"
)

ROOT = bytes(range(32))
GOOD = sign_checkpoint(7, ROOT, HHS_LOG)
VERIFIER = HHS_LOG.verifier
STRANGER = Signer(HHS_LOG.name, ed25519("stranger"))
WITNESS = Signer("witness.example", ed25519("witness"))


def test_the_published_note_of_go_is_signed_byte_for_byte() -> None:
    signer = Signer("PeterNeumann", Ed25519PrivateKey.from_private_bytes(GO_SEED))

    assert signer.verifier.vkey() == GO_VKEY
    assert signer.signature_line(GO_TEXT) == GO_LINE


def test_the_published_note_of_go_is_verified() -> None:
    verifier = Verifier.parse(GO_VKEY)
    signature = base64.b64decode(GO_LINE.split()[2])

    assert verifier.key_id == signature[:4]
    assert verifier.verifies(GO_TEXT, signature[4:])
    assert not verifier.verifies(GO_TEXT.replace("y", "Y"), signature[4:])


@pytest.mark.parametrize("text", [GO_VKEY, *OTHER_VKEYS, VERIFIER.vkey()])
def test_published_vkeys_are_read_and_written(text: str) -> None:
    assert Verifier.parse(text).vkey() == text


def test_a_cosigner_key_signs_no_checkpoint() -> None:
    cosigner = Verifier(VERIFIER.name, COSIGNATURE, VERIFIER.public)

    assert cosigner.key_id != VERIFIER.key_id
    assert not cosigner.verifies("", b"")
    with pytest.raises(EvidenceError, match="NB-3052"):
        verify_checkpoint(GOOD, [cosigner])


def test_the_checkpoint_of_the_specification_is_read() -> None:
    signed = parse_checkpoint(C2SP_CHECKPOINT)

    assert signed.checkpoint.origin == "example.com/behind-the-sofa"
    assert signed.checkpoint.size == 20852163
    assert signed.checkpoint.text() + "\n" == C2SP_CHECKPOINT.split("—")[0]
    assert signed.signatures[0].key_id.hex() == "033de0ae"


@given(size=st.integers(0, SIZE_MAX), root=st.binary(min_size=32, max_size=32))
@settings(deadline=None)
def test_a_checkpoint_is_verified_as_it_was_signed(size: int, root: bytes) -> None:
    note = sign_checkpoint(size, root, HHS_LOG)

    assert verify_checkpoint(note, [VERIFIER]) == Checkpoint(HHS_LOG.name, size, root)
    assert parse_checkpoint(note).note == note


def test_signatures_of_unknown_keys_are_ignored() -> None:
    text = GOOD.partition("\n\n")[0] + "\n"
    note = GOOD + WITNESS.signature_line(text) + STRANGER.signature_line(text)

    assert verify_checkpoint(note, [STRANGER.verifier, VERIFIER]).size == 7
    assert verify_checkpoint(note, [VERIFIER]).size == 7
    assert len(parse_checkpoint(note).signatures) == 3


def test_a_witness_alone_makes_no_checkpoint() -> None:
    text = GOOD.partition("\n\n")[0] + "\n"

    with pytest.raises(EvidenceError, match="NB-3052"):
        verify_checkpoint(f"{text}\n{WITNESS.signature_line(text)}", [WITNESS.verifier, VERIFIER])


def test_a_checkpoint_under_a_key_that_is_not_trusted_is_refused() -> None:
    with pytest.raises(EvidenceError, match="NB-3052"):
        verify_checkpoint(sign_checkpoint(7, ROOT, STRANGER), [VERIFIER])
    with pytest.raises(EvidenceError, match="NB-3052"):
        verify_checkpoint(GOOD, [])


def test_a_wrong_signature_of_a_known_key_spoils_the_note() -> None:
    other = sign_checkpoint(8, ROOT, HHS_LOG)

    with pytest.raises(EvidenceError, match="NB-3053"):
        verify_checkpoint(other.replace("\n8\n", "\n7\n"), [VERIFIER])
    with pytest.raises(EvidenceError, match="NB-3053"):
        verify_checkpoint(GOOD + other.rpartition("\n\n")[2], [VERIFIER])


def test_a_short_signature_of_a_known_key_is_a_wrong_one() -> None:
    short = base64.b64encode(VERIFIER.key_id + b"x").decode()
    note = GOOD.rpartition("\n\n")[0] + f"\n\n— {VERIFIER.name} {short}\n"

    with pytest.raises(EvidenceError, match="NB-3053"):
        verify_checkpoint(note, [VERIFIER])


@pytest.mark.parametrize(
    "note",
    [
        "",
        "\n\n",
        GOOD[:-1],
        GOOD + "\n",
        GOOD + "x\n",
        GOOD.replace("\n", "\r\n"),
        GOOD.replace("\n\n", "\n"),
        GOOD.replace("\n\n", "\nextension\n\n"),
        GOOD.replace("\n\n", "\n\n\n"),
        GOOD.replace("\n7\n", "\n07\n"),
        GOOD.replace("\n7\n", "\n-7\n"),
        GOOD.replace("\n7\n", "\n\u0667\n"),
        GOOD.replace("\n7\n", "\n\n"),
        GOOD.replace("\n7\n", "\n9999999999999999999\n"),
        GOOD.replace("\n7\n", f"\n{'9' * 60}\n"),
        GOOD.replace("=\n\n", "\n\n"),
        GOOD.replace("AAEC", "AAE*"),
        GOOD.replace("AAEC", ""),
        GOOD.replace("— ", "- "),
        GOOD.replace("— ", "—  "),
        GOOD.replace(HHS_LOG.name, "a b"),
        GOOD.replace(HHS_LOG.name, "a+b"),
        GOOD.replace(HHS_LOG.name, ""),
        GOOD.replace("hhs/1 ", "hhs/1 é"),
        GOOD.replace("\n7\n", "\n7\x00\n"),
        GOOD.replace("\n7\n", "\n7\ud800\n"),
        GOOD + "— x AAAA\n",
        GOOD + "— x AAAAAA==\n" * 70,
        GOOD + "x" * 70_000,
    ],
)
def test_a_malformed_note_is_refused(note: str) -> None:
    with pytest.raises(EvidenceError, match="NB-3050"):
        verify_checkpoint(note, [VERIFIER])


@given(at=st.integers(0, len(GOOD) - 1), put=st.text(max_size=4), drop=st.integers(0, 4))
@settings(max_examples=300, deadline=None)
def test_any_damage_is_refused_in_one_way(at: int, put: str, drop: int) -> None:
    damaged = GOOD[:at] + put + GOOD[at + drop :]

    if damaged != GOOD:
        with pytest.raises(EvidenceError, match="NB-305"):
            verify_checkpoint(damaged, [VERIFIER])


@pytest.mark.parametrize(
    "vkey",
    [
        "",
        "name",
        "name+00000000",
        GO_VKEY.replace("c74f20a3", "c74f20a4"),
        GO_VKEY.replace("c74f20a3", "C74F20A3"),
        GO_VKEY.replace("PeterNeumann", "Peter Neumann"),
        GO_VKEY.replace("PeterNeumann", ""),
        GO_VKEY.replace("PeterNeumann", "Peter\u2003Neumann"),
        GO_VKEY[:-4],
        GO_VKEY + "=",
        GO_VKEY + "\n",
        GO_VKEY.replace("+AR", "+Ax"),
        GO_VKEY.replace("PeterNeumann", "\ud800"),
        GO_VKEY.replace("PeterNeumann", "Peter\x00"),
    ],
)
def test_a_malformed_vkey_is_refused(vkey: str) -> None:
    with pytest.raises(EvidenceError, match="NB-3051"):
        Verifier.parse(vkey)


@given(st.text(max_size=60), st.binary(max_size=40))
def test_any_text_that_is_no_vkey_is_refused_in_one_way(name: str, key: bytes) -> None:
    for text in (name, f"{name}+00000000+{base64.b64encode(key).decode()}"):
        with pytest.raises(EvidenceError, match="NB-3051"):
            Verifier.parse(text)


@given(public=st.binary(min_size=32, max_size=32), signature=st.binary(max_size=70))
def test_a_key_that_is_no_point_verifies_nothing(public: bytes, signature: bytes) -> None:
    assert not Verifier("x", ED25519, public).verifies("text\n", signature)


@pytest.mark.parametrize("name", ["", "a b", "a+b", "a\nb"])
def test_a_name_that_cannot_stand_in_a_note_signs_nothing(name: str) -> None:
    with pytest.raises(ValueError, match="name"):
        Signer(name, ed25519("x"))
