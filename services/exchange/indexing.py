"""The index key that both agencies share, and the tags of cases that are made with it.

One side makes it and hands it over in a file that the other alone can open and that only the first
can have made; both put its hash on record. Whoever has it can test any child.
"""

import os
from datetime import UTC, datetime

import orjson

from schemas.canonical import b64
from schemas.casetag import (
    INDEX_KEY_BYTES,
    casetag,
    index_key_hash,
    index_key_text,
    parse_index_key,
)
from schemas.envelope import Kind
from schemas.errors import RejectedError
from schemas.jose import decrypt_jwe, encrypt_jwe, read_jws, sign_jws, verify_jws
from services.exchange.agency import Agency
from services.exchange.parties import PARTY_CHANNEL
from services.keys import KeyRing
from services.ledger.records import make_record
from services.ledger.store import append, notify

TYP = "noticebus-index+jws"


def tag_of(kind: Kind, body: bytes, index_key: bytes | None) -> bytes | None:
    """Return the tag of a message's case: notices alone have one, and only with an index key."""
    if index_key is None or kind is not Kind.FTA:
        return None
    return casetag(index_key, str(orjson.loads(body)["a_number"]))


async def seal_index_key(agency: Agency, *, actor: str) -> bytes:
    """Return our index key sealed for the peer; it is made first where there is none.

    Raises `UnavailableError` NB-4011 before any party file of the peer is trusted.
    """
    encrypt_to = agency.directory.encrypt_to
    key = agency.ring.index_key or os.urandom(INDEX_KEY_BYTES)
    await _keep(agency, key, "index.sealed", actor)
    jwe = encrypt_jwe(
        index_key_text(key),
        encrypt_to,
        apu=agency.source.encode("ascii"),
        apv=agency.peer.encode("ascii"),
    )
    return sign_jws(jwe, agency.ring.signing, TYP)


async def take_index_key(agency: Agency, sealed: bytes, *, actor: str) -> None:
    """Keep the index key that the peer sealed for us.

    Raises `RejectedError` NB-3223 for a file that the peer did not sign or that is not for us,
    `ConflictError` NB-3222 where we have another one.
    """
    try:
        key = _opened(agency, sealed.strip())
    except RejectedError as error:
        raise RejectedError("NB-3223", cause=error.sentence) from error
    await _keep(agency, key, "index.taken", actor)


def _opened(agency: Agency, sealed: bytes) -> bytes:
    signed = read_jws(sealed, TYP)
    signer = agency.directory.verify_keys.get(signed.kid)
    # A key that ended, by retirement or revocation, vouches for no secret any more.
    if signer is None or signed.kid in agency.directory.endings:
        raise RejectedError("NB-2010", kid=signed.kid)
    verify_jws(signed.signature, signed.digest, signer)
    text = decrypt_jwe(
        signed.payload.decode("ascii", "replace"),
        agency.ring.decryption,
        apu=signer.owner.encode("ascii"),
        apv=agency.name.encode("ascii"),
    )
    return parse_index_key(text)


async def _keep(agency: Agency, key: bytes, action: str, actor: str) -> None:
    """Put the key into its folder and its hash on record, and let running processes read it.

    Cut off in between, the same command does the rest.
    """
    KeyRing.add_index_key(agency.settings.keys_folder, key)
    detail = {"index": b64(index_key_hash(key))}
    async with agency.store.transaction() as tx:
        await append(tx, [make_record(action, time=datetime.now(UTC), actor=actor, detail=detail)])
        await notify(tx, PARTY_CHANNEL)
    await agency.reload()
