"""The golden vectors: what was frozen is still written byte for byte, and still read.

What a sealed envelope holds at random (keys of the moment, nonces, signatures) is read only.
"""

import json
from typing import Any

import pytest

from schemas.canonical import b64, canonical, parse, unb64
from schemas.checkpoint import verify_checkpoint
from schemas.envelope import Envelope, envelope_hash, expect, open_data, read, verify
from schemas.envelope.attributes import members_of
from schemas.party import Party, fingerprint
from schemas.proof import (
    append,
    batch_proofs,
    leaf_hash,
    parse_tlog_proof,
    root_of,
    verify_consistency,
    verify_inclusion,
)
from tests.vectors.make import FOLDER, HHS_LOG, OPENING, VERIFY, text_of, vectors


def stored(name: str) -> Any:
    return json.loads((FOLDER / name).read_text(encoding="utf-8"))


def opened(name: str) -> tuple[dict[str, Any], Envelope]:
    vector = stored("envelopes.json")[name]
    return vector, verify(read(vector["jws"].encode()), VERIFY)


@pytest.mark.parametrize("name", sorted(vectors()))
def test_every_format_is_still_written_byte_for_byte(name: str) -> None:
    assert text_of(vectors()[name]) == (FOLDER / name).read_text(encoding="utf-8")


@pytest.mark.parametrize("name", sorted(stored("envelopes.json")))
def test_a_stored_envelope_still_says_the_same(name: str) -> None:
    vector, envelope = opened(name)
    attributes = envelope.attributes

    assert members_of(attributes) == vector["attributes"]
    assert b64(envelope.hash) == vector["hash"] == b64(envelope_hash(vector["jws"].encode()))
    expect(envelope, stream=vector["stream"], recipient=attributes.recipient)
    content = open_data(envelope, {key.kid: key for key in [OPENING[attributes.recipient]]})
    assert content.body.decode() == vector["body"]
    assert content.salt == unb64(vector["salt"] or "")


@pytest.mark.parametrize("name", sorted(stored("envelopes.json")))
def test_a_stored_envelope_is_canonical_json_in_all_its_parts(name: str) -> None:
    vector, _ = opened(name)
    header, payload, _ = vector["jws"].split(".")

    members = parse(unb64(payload))

    assert sorted(parse(unb64(header))) == ["alg", "kid", "typ"]
    content = members.pop("data")
    assert members.pop("datacontenttype") == (
        "application/json" if vector["salt"] is None else "application/jose"
    )
    assert members == vector["attributes"]
    if vector["salt"] is None:
        assert canonical(content).decode() == vector["body"]
    else:
        assert sorted(parse(unb64(content.split(".")[0]))) == [
            *("alg", "apu", "apv", "enc", "epk", "kid")
        ]


def test_a_stored_control_message_is_signed_over_the_same_bytes() -> None:
    """Nothing in the payload of a control message is random: it is byte-exact."""
    vector, _ = opened("refusal")
    payload = dict(vector["attributes"])
    payload |= {"data": parse(vector["body"].encode()), "datacontenttype": "application/json"}

    assert unb64(vector["jws"].split(".")[1]) == canonical(payload)


def test_stored_canonical_values_are_read_back() -> None:
    for vector in stored("canonical.json"):
        assert parse(vector["canonical"].encode()) == vector["value"]


def test_the_stored_tree_proves_its_records() -> None:
    vector = stored("tree.json")
    leaves = [leaf_hash(record.encode()) for record in vector["records"]]
    roots = [bytes.fromhex(root) for root in vector["roots"]]
    size = len(leaves)

    assert [leaf.hex() for leaf in leaves] == vector["leaves"]
    for count, frontier in enumerate(vector["frontiers"]):
        nodes = [bytes.fromhex(node) for node in frontier]
        assert root_of(nodes, count) == roots[count]
        assert root_of(append(nodes, count, leaves[count:])) == roots[size]
        proofs = batch_proofs(nodes, count, leaves[count:])
        assert [[node.hex() for node in proof] for proof in proofs] == vector["inclusion"][count:]
    for case in vector["consistency"]:
        verify_consistency(
            old=case["old"],
            old_root=roots[case["old"]],
            new=case["new"],
            new_root=roots[case["new"]],
            proof=[bytes.fromhex(node) for node in case["proof"]],
        )


@pytest.mark.parametrize("name", ["tlog_proof", "tlog_proof_extra"])
def test_a_stored_tlog_proof_proves_its_record(name: str) -> None:
    vector = stored("tree.json")

    read_back = parse_tlog_proof(vector[name])

    checkpoint = verify_checkpoint(read_back.checkpoint, [HHS_LOG.verifier])
    verify_inclusion(
        leaf_hash(vector["records"][read_back.index].encode()),
        index=read_back.index,
        size=checkpoint.size,
        proof=read_back.proof,
        root=checkpoint.root,
    )
    assert read_back.extra == (b"anything" if name == "tlog_proof_extra" else None)


def test_the_stored_party_file_is_read_and_written_again() -> None:
    vector = stored("party.json")
    file = vector["file"].encode()

    party = Party.from_bytes(file)

    assert party.to_bytes() == file
    assert fingerprint(file) == vector["fingerprint"]
    assert set(party.verify_keys()) <= set(VERIFY)
    assert party.log_verifiers() == (HHS_LOG.verifier,)
