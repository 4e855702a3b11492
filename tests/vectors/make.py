"""Make the golden vectors again: `python -m tests.vectors.make`, then read the difference.

The formats are frozen: a difference in anything but an added example is a break of the format.
What is random (ephemeral keys, nonces, signatures) cannot be made again, so a stored envelope is
kept as long as it says the same, and only new ones are sealed.

The keys are TEST KEYS, derived from their names and known to everyone: never trust them.
"""

import json
from datetime import UTC, datetime
from hashlib import sha256
from pathlib import Path
from typing import Any
from uuid import UUID

from cryptography.hazmat.primitives.asymmetric import ec
from cryptography.hazmat.primitives.asymmetric.ed25519 import Ed25519PrivateKey
from cryptography.hazmat.primitives.serialization import Encoding, PublicFormat

from schemas.canonical import b64, canonical
from schemas.checkpoint import COSIGNATURE, Signer, Verifier, sign_checkpoint
from schemas.envelope import (
    Attributes,
    Kind,
    Lane,
    PrivateKey,
    PublicEncryptionKey,
    SigningKey,
    VerifyKey,
    commitment,
    envelope_hash,
    partition_of,
    seal,
    source_of,
    stream_name,
)
from schemas.envelope.attributes import members_of
from schemas.jose import public_jwk
from schemas.party import KeySet, LanePartitions, Party, PublicKey, fingerprint
from schemas.proof import (
    append,
    consistency_proof,
    inclusion_proof,
    leaf_hash,
    range_root,
    root_of,
    tlog_proof,
)

FOLDER = Path(__file__).parent
ORDER = 0xFFFFFFFF00000000FFFFFFFFFFFFFFFFBCE6FAADA7179E84F3B9CAC2FC632551

ICE = source_of("ice.noticebus.example", "ice")
HHS = source_of("hhs.noticebus.example", "hhs")
NOTICE_ID = UUID("019c0de0-1111-7222-8333-000000000001")
MADE_AT = datetime(2026, 11, 23, 21, 4, 5, 123456, tzinfo=UTC)
SCHEMAS = "https://noticebus.example/schemas"


def p256(name: str) -> ec.EllipticCurvePrivateKey:
    """Return the TEST key of this name."""
    secret = int.from_bytes(sha256(f"noticebus test key {name}".encode()).digest(), "big")
    return ec.derive_private_key(secret % (ORDER - 1) + 1, ec.SECP256R1())


def ed25519(name: str) -> Ed25519PrivateKey:
    """Return the TEST key of this name."""
    seed = sha256(f"noticebus test key {name}".encode()).digest()
    return Ed25519PrivateKey.from_private_bytes(seed)


def salt_of(name: str) -> bytes:
    """Return 32 bytes that are the same each time; real ones are random."""
    return sha256(f"noticebus test salt {name}".encode()).digest()


SIGNING = {"ice": SigningKey.of(p256("ice sig")), "hhs": SigningKey.of(p256("hhs sig"))}
OPENING = {"ice": PrivateKey.of(p256("ice enc")), "hhs": PrivateKey.of(p256("hhs enc"))}
SOURCES = {"ice": ICE, "hhs": HHS}
VERIFY = {
    key.kid: VerifyKey.of(key.private.public_key(), owner=SOURCES[agency])
    for agency, key in SIGNING.items()
}
ENCRYPT_TO = {
    agency: PublicEncryptionKey.of(key.private.public_key()) for agency, key in OPENING.items()
}
HHS_LOG = Signer("hhs.noticebus.example/noticebus/hhs/1", ed25519("hhs log"))


def body_of_corpus(name: str) -> bytes:
    """Return the canonical body of one file of the corpus."""
    return canonical(json.loads((FOLDER / "corpus" / name).read_text(encoding="utf-8")))


def an_fta(**changes: Any) -> tuple[Attributes, bytes, bytes]:
    """Return attributes, body and salt of a notice, with anything changed that a test names."""
    body = changes.pop("body", None) or body_of_corpus("fta.v1.0.json")
    salt = changes.pop("salt", salt_of("fta"))
    given: dict[str, Any] = {
        "id": UUID("019c0de0-2222-7222-8333-000000000002"),
        "kind": Kind.FTA,
        "version": 1,
        "source": ICE,
        "subject": NOTICE_ID,
        "time": MADE_AT,
        "sequence": 1,
        "correlationid": NOTICE_ID,
        "recipient": "hhs",
        "lane": Lane.LIVE,
        "partition": 0,
        "generation": 1,
        "revision": 1,
        "commitment": commitment(salt, body),
        "dataschema": f"{SCHEMAS}/fta.v1.json",
    }
    return Attributes(**given | changes), body, salt


def a_refusal(**changes: Any) -> tuple[Attributes, bytes]:
    """Return attributes and body of a control message."""
    given: dict[str, Any] = {
        "id": UUID("019c0de0-3333-7222-8333-000000000003"),
        "kind": Kind.REFUSAL,
        "version": 1,
        "source": HHS,
        "time": MADE_AT,
        "sequence": 20_000_000,
        "correlationid": NOTICE_ID,
        "causationid": UUID("019c0de0-2222-7222-8333-000000000002"),
        "recipient": "ice",
        "lane": Lane.CONTROL,
        "partition": 0,
        "generation": 2,
        "dataschema": f"{SCHEMAS}/refusal.v1.json",
    }
    return Attributes(**given | changes), body_of_corpus("refusal.v1.0.json")


def keys() -> dict[str, Any]:
    """Return every TEST key with its id."""

    def private_jwk(private: ec.EllipticCurvePrivateKey, use: str) -> dict[str, str]:
        secret = private.private_numbers().private_value.to_bytes(32, "big")
        return public_jwk(private.public_key(), use=use) | {"d": b64(secret)}

    verifier = HHS_LOG.verifier
    return {
        "warning": "TEST KEYS, known to everyone: never trust them",
        "p256": {
            f"{agency} {use}": private_jwk(p256(f"{agency} {use}"), use)
            for agency in ("ice", "hhs")
            for use in ("sig", "enc")
        },
        "log": {
            "name": verifier.name,
            "seed": HHS_LOG.private.private_bytes_raw().hex(),
            "key_id": verifier.key_id.hex(),
            "vkey": verifier.vkey(),
        },
    }


def canonical_values() -> list[dict[str, Any]]:
    """Return JSON values and the text that they are written as."""
    values: list[Any] = [
        {},
        [],
        {"b": 1, "a": [True, False, None], "A": {"z": -1, "y": 0}},
        {"integers": [2**53 - 1, -(2**53) + 1, 0]},
        {"text": '"\\/\b\t\n\f\r\u0000\u001f\u007f'},
        {"text": "Ñandú, 東京, 😀, \u2028"},
    ]
    return [{"value": value, "canonical": canonical(value).decode()} for value in values]


def envelopes() -> dict[str, Any]:
    """Return sealed messages with everything that a reader must find in them."""
    path = FOLDER / "envelopes.json"
    stored = json.loads(path.read_text(encoding="utf-8")) if path.exists() else {}
    fta, body, salt = an_fta()
    nil, _, nil_salt = an_fta(
        body=body_of_corpus("nilreturn.v1.0.json"),
        salt=salt_of("nilreturn"),
        id=UUID("019c0de0-4444-7222-8333-000000000004"),
        kind=Kind.NILRETURN,
        subject=None,
        revision=None,
        lane=Lane.BACKLOG,
        partition=3,
        dataschema=f"{SCHEMAS}/nilreturn.v1.json",
    )
    refusal, refusal_body = a_refusal()
    return {
        "fta": _envelope(stored.get("fta"), fta, body, salt),
        "nilreturn": _envelope(
            stored.get("nilreturn"), nil, body_of_corpus("nilreturn.v1.0.json"), nil_salt
        ),
        "refusal": _envelope(stored.get("refusal"), refusal, refusal_body, None),
    }


def _envelope(
    stored: dict[str, Any] | None, attributes: Attributes, body: bytes, salt: bytes | None
) -> dict[str, Any]:
    same = stored is not None and (
        stored["attributes"] == members_of(attributes) and stored["body"] == body.decode()
    )
    jws = (
        stored["jws"].encode()
        if stored is not None and same
        else seal(
            attributes,
            data=body,
            signing=SIGNING[attributes.sender],
            encrypt_to=None if salt is None else ENCRYPT_TO[attributes.recipient],
            salt=salt,
        )
    )
    return {
        "attributes": members_of(attributes),
        "stream": attributes.stream,
        "body": body.decode(),
        "salt": None if salt is None else b64(salt),
        "hash": b64(envelope_hash(jws)),
        "jws": jws.decode(),
    }


def streams() -> dict[str, Any]:
    """Return names and partitions that both sides must derive alike."""
    return {
        "names": {
            "ice to hhs, live": stream_name("ice", "hhs", Lane.LIVE, 0),
            "ice to hhs, backlog 3": stream_name("ice", "hhs", Lane.BACKLOG, 3),
            "hhs to ice, control": stream_name("hhs", "ice", Lane.CONTROL, 0),
        },
        "partitions": [
            {"notice_id": str(notice_id), "of": of, "partition": partition_of(notice_id, of)}
            for notice_id in (NOTICE_ID, UUID(int=0), UUID(int=2**128 - 1))
            for of in (1, 2, 7, 64)
        ],
    }


def tree() -> dict[str, Any]:
    """Return a small ledger: records, roots and frontiers of each size, proofs, a checkpoint."""
    records = [canonical({"action": "test", "number": number, "v": 1}) for number in range(11)]
    leaves = [leaf_hash(record) for record in records]
    size = len(leaves)

    def root_of_range(first: int, end: int) -> bytes:
        return range_root(leaves[first:end])

    checkpoint = sign_checkpoint(size, range_root(leaves), HHS_LOG)
    proofs = [inclusion_proof(index, size, root_of_range) for index in range(size)]
    return {
        "records": [record.decode() for record in records],
        "leaves": [leaf.hex() for leaf in leaves],
        "frontiers": [
            [node.hex() for node in append([], 0, leaves[:count])] for count in range(size + 1)
        ],
        "roots": [root_of(append([], 0, leaves[:count])).hex() for count in range(size + 1)],
        "inclusion": [[node.hex() for node in proof] for proof in proofs],
        "consistency": [
            {
                "old": old,
                "new": new,
                "proof": [node.hex() for node in consistency_proof(old, new, root_of_range)],
            }
            for old, new in ((0, 5), (1, 1), (1, 8), (4, 11), (6, 8), (7, 11), (8, 11), (11, 11))
        ],
        "checkpoint": checkpoint,
        "tlog_proof": tlog_proof(6, proofs[6], checkpoint),
        "tlog_proof_extra": tlog_proof(10, proofs[10], checkpoint, extra=b"anything"),
    }


def party() -> Party:
    """Return the TEST party of HHS."""
    cosigner = ed25519("hhs cosigner").public_key().public_bytes(Encoding.Raw, PublicFormat.Raw)
    keys_of_party = (
        public_jwk(p256("hhs sig").public_key(), use="sig"),
        public_jwk(p256("hhs enc").public_key(), use="enc"),
    )
    return Party(
        agency="hhs",
        domain="hhs.noticebus.example",
        generation=1,
        jwks=KeySet(keys=tuple(PublicKey.model_validate(key) for key in keys_of_party)),
        log_keys=(HHS_LOG.verifier.vkey(),),
        cosigner_keys=(Verifier("hhs.noticebus.example/cosigner", COSIGNATURE, cosigner).vkey(),),
        partitions=LanePartitions(live=2, backlog=4),
        made_at=MADE_AT,
    )


def parties() -> dict[str, Any]:
    """Return a party file and its fingerprint."""
    file = party().to_bytes()
    return {"file": file.decode(), "fingerprint": fingerprint(file)}


def vectors() -> dict[str, Any]:
    """Return the content of every vector file by its name."""
    return {
        "keys.json": keys(),
        "canonical.json": canonical_values(),
        "envelopes.json": envelopes(),
        "streams.json": streams(),
        "tree.json": tree(),
        "party.json": parties(),
    }


def text_of(content: Any) -> str:
    """Return a vector file's text."""
    return json.dumps(content, indent=2, ensure_ascii=False) + "\n"


if __name__ == "__main__":
    for name, content in vectors().items():
        (FOLDER / name).write_text(text_of(content), encoding="utf-8")
