"""Records of the audit log: what they say, and the one spelling in which they are hashed.

A record is canonical JSON (RFC 8785) without personal data. Actor, office and free text stand in it
as commitments: SHA-256 over a random salt, the member's name, a zero byte and the value. Salt and
value are kept beside the record and can be erased; record, proof and counts stay. The record's own
salt keeps its leaf hash from being guessed by those who are shown the hash alone; it is not the
salt of the commitments, because who is shown a record could then try names against them.
"""

from collections.abc import Mapping
from dataclasses import dataclass
from datetime import datetime
from hashlib import sha256
from os import urandom
from typing import Any
from uuid import UUID

from schemas.canonical import b64, canonical, format_time, parse, parse_time, unb64
from schemas.errors import EvidenceError, RejectedError

RECORD_VERSION = 1
RECORD_BYTES_MAX = 8192
SALT_BYTES = 16
COMMITTED = ("actor", "office", "text")


@dataclass(frozen=True, slots=True, kw_only=True)
class Record:
    """One record: the bytes that are hashed, and what stands beside them for searching.

    `opened` holds salt and value of each commitment: `{"actor": {"salt": ..., "value": ...}}`.
    """

    action: str
    record: bytes
    notice_id: UUID | None
    message_id: UUID | None
    recorded_at: datetime
    opened: Mapping[str, Mapping[str, str]] | None = None


def make_record(
    action: str,
    *,
    time: datetime,
    result: str = "ok",
    notice_id: UUID | None = None,
    message_id: UUID | None = None,
    stream: str | None = None,
    generation: int | None = None,
    sequence: int | None = None,
    envelope: bytes | None = None,
    commitment: bytes | None = None,
    casetag: bytes | None = None,
    policy: str | None = None,
    reason: str | None = None,
    actor: str | None = None,
    office: str | None = None,
    text: str | None = None,
    detail: Mapping[str, int | str] | None = None,
) -> Record:
    """Return the record of one act; what is None is left out of its bytes.

    `reason` is a code. `actor`, `office` and `text` may be personal: only commitments to them enter
    the bytes. `detail` must hold counts, codes and ids alone. Raises `RejectedError` NB-3001 when
    the bytes exceed 8 KiB, NB-2004 for what has no canonical form.
    """
    said: dict[str, Any] = {
        "v": RECORD_VERSION,
        "action": action,
        "result": result,
        "salt": b64(urandom(SALT_BYTES)),
        "time": format_time(time),
    }
    if notice_id is not None:
        said["notice_id"] = str(notice_id)
    if message_id is not None:
        said["message_id"] = str(message_id)
    if envelope is not None:
        said["envelope"] = b64(envelope)
    if commitment is not None:
        said["commitment"] = b64(commitment)
    if casetag is not None:
        said["casetag"] = b64(casetag)
    if detail is not None:
        said["detail"] = dict(detail)
    for name, value in (
        ("stream", stream),
        ("generation", generation),
        ("sequence", sequence),
        ("policy", policy),
        ("reason", reason),
    ):
        if value is not None:
            said[name] = value
    opened: dict[str, dict[str, str]] = {}
    for name, value in zip(COMMITTED, (actor, office, text), strict=True):
        if value is not None:
            salt = urandom(SALT_BYTES)
            said[name] = b64(commitment_to(name, value, salt=salt))
            opened[name] = {"salt": b64(salt), "value": value}
    record = canonical(said)
    if len(record) > RECORD_BYTES_MAX:
        raise RejectedError("NB-3001", action=action, size=len(record), limit=RECORD_BYTES_MAX)
    return Record(
        action=action,
        record=record,
        notice_id=notice_id,
        message_id=message_id,
        recorded_at=time,
        opened=opened or None,
    )


def commitment_to(name: str, value: str, *, salt: bytes) -> bytes:
    """Return the 32-byte commitment to one member's value."""
    return sha256(salt + name.encode("ascii") + b"\x00" + value.encode("utf-8")).digest()


def opening_holds(said: Mapping[str, Any], opened: object) -> bool:
    """Say whether each opened value is what the record committed to; fewer may be opened."""
    if not isinstance(opened, dict):
        return False
    for name, opening in opened.items():
        try:
            salt, value = unb64(opening["salt"]), opening["value"]
            if name not in COMMITTED or said[name] != b64(commitment_to(name, value, salt=salt)):
                return False
        except (KeyError, TypeError, AttributeError, RejectedError):
            return False
    return True


def read_record(record: bytes, *, index: int) -> dict[str, Any]:
    """Return what a stored record says; `index` names it in errors.

    Raises `EvidenceError` NB-3002 for bytes that `make_record` cannot have written.
    """
    try:
        said = parse(record)
    except RejectedError as error:
        raise EvidenceError("NB-3002", index=index, rule=error.sentence) from None
    if not isinstance(said, dict) or said.get("v") != RECORD_VERSION:
        raise EvidenceError("NB-3002", index=index, rule="its version is unknown")
    return said


def differing_column(
    said: Mapping[str, Any],
    *,
    action: str,
    notice_id: UUID | None,
    message_id: UUID | None,
    recorded_at: datetime,
) -> str | None:
    """Return the name of the first column that says something else than the record's bytes."""
    if said.get("action") != action:
        return "action"
    if said.get("notice_id") != (str(notice_id) if notice_id is not None else None):
        return "notice_id"
    if said.get("message_id") != (str(message_id) if message_id is not None else None):
        return "message_id"
    try:
        same_time = parse_time(said["time"]) == recorded_at
    except (KeyError, TypeError, RejectedError):
        same_time = False
    return None if same_time else "recorded_at"
