"""Cosignatures: a witness' line under a checkpoint, both ways, and hostile ones."""

from datetime import UTC, datetime

import pytest
from cryptography.hazmat.primitives.asymmetric.ed25519 import Ed25519PublicKey

from schemas.checkpoint import (
    Signer,
    Verifier,
    parse_checkpoint,
    sign_checkpoint,
    verify_checkpoint,
)
from schemas.cosignature import cosign, cosignatures, cosigner, with_cosignatures
from schemas.errors import EvidenceError
from tests.vectors.make import HHS_LOG, ed25519

AT = datetime(2026, 11, 23, 21, 4, 5, 654321, tzinfo=UTC)
NOTE = sign_checkpoint(7, bytes(range(32)), HHS_LOG)
WITNESS = Signer("ice.noticebus.example/cosigner", ed25519("witness"))
LINE = cosign(parse_checkpoint(NOTE).checkpoint, WITNESS, AT)
COSIGNED = with_cosignatures(NOTE, [LINE])

# From https://c2sp.org/tlog-cosignature and the tools that follow it: the message that is signed.
MESSAGE = f"cosignature/v1\ntime {int(AT.timestamp())}\n{NOTE.partition(chr(10) * 2)[0]}\n"


def test_a_cosignature_is_what_the_specification_says() -> None:
    signature = parse_checkpoint(COSIGNED).signatures[-1].signature

    assert int.from_bytes(signature[:8], "big") == int(AT.timestamp())
    key = Ed25519PublicKey.from_public_bytes(cosigner(WITNESS).public)
    key.verify(signature[8:], MESSAGE.encode())


def test_a_cosigned_note_is_still_the_logs_own() -> None:
    assert verify_checkpoint(COSIGNED, [HHS_LOG.verifier]) == parse_checkpoint(NOTE).checkpoint
    [found] = cosignatures(COSIGNED, [cosigner(WITNESS)])
    assert (found.verifier, found.line) == (cosigner(WITNESS), LINE)
    assert found.at == AT.replace(microsecond=0)
    assert Verifier.parse(cosigner(WITNESS).vkey()) == cosigner(WITNESS)


def test_lines_of_strangers_are_passed_over() -> None:
    stranger = Signer("stranger.example/cosigner", ed25519("stranger"))

    assert cosignatures(COSIGNED, [cosigner(stranger)]) == []
    # The log key under the witness' name is not the witness: its id names another type.
    assert cosignatures(COSIGNED, [WITNESS.verifier]) == []


@pytest.mark.parametrize(
    "changed",
    [
        COSIGNED.replace("\n7\n", "\n8\n"),
        with_cosignatures(NOTE, [LINE[:-12] + ("A" if LINE[-12] != "A" else "B") + LINE[-11:]]),
        with_cosignatures(sign_checkpoint(7, bytes(32), HHS_LOG), [LINE]),
    ],
    ids=["another size", "another signature", "another root"],
)
def test_what_the_witness_did_not_sign_spoils_the_note(changed: str) -> None:
    with pytest.raises(EvidenceError, match="NB-3053"):
        cosignatures(changed, [cosigner(WITNESS)])


def test_a_line_is_added_once() -> None:
    assert with_cosignatures(COSIGNED, [LINE]) == COSIGNED
