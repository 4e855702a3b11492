"""Tags of cases: which notices are of one child, to whoever holds the index key.

A tag is HMAC-SHA-256 under a key that both agencies share, over the A-number. It says nothing to
anybody without the key but that two notices are of the same child; whoever holds the key can test
any child, because there are few A-numbers. Without an index key there are no tags.
"""

import hmac
from hashlib import sha256

from schemas.canonical import b64, unb64
from schemas.errors import RejectedError

INDEX_KEY_BYTES = 32

# What is tagged, so that the same key can never be made to tag something else.
_CASE = b"noticebus casetag 1\x00"
_KEY = b"noticebus index key 1\x00"


def casetag(index_key: bytes, a_number: str) -> bytes:
    """Return the 32-byte tag of a case; the A-number is written as notices write it."""
    return hmac.digest(index_key, _CASE + a_number.encode("ascii"), "sha256")


def index_key_hash(index_key: bytes) -> bytes:
    """Return what the ledger names an index key by; the key is random, so it gives nothing away."""
    return sha256(_KEY + index_key).digest()


def index_key_text(index_key: bytes) -> bytes:
    """Return the one line that an index key is kept and handed over as."""
    return f"{b64(index_key)}\n".encode("ascii")


def parse_index_key(text: bytes) -> bytes:
    """Return the index key of a line. Raises `RejectedError` NB-2003, or NB-3221 for another."""
    key = unb64(text.removesuffix(b"\n"))
    if len(key) != INDEX_KEY_BYTES:
        raise RejectedError("NB-3221", rule=f"it has {len(key)} bytes and not {INDEX_KEY_BYTES}")
    return key
