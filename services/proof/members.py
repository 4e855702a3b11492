"""Lay out what was gathered as the members of a bundle, and sign what they are.

manifest.jws                            names every member with its SHA-256; signed by the maker
notices/ID/evidence.json                what belongs together, for programs
notices/ID/messages/MESSAGE.jws         envelopes as they were sent and received
notices/ID/records/INDEX.json, .tlog    our records, each with its tlog-proof
notices/ID/receipts/MESSAGE.json, .tlog the recipient's record of a message, with its proof
notices/ID/revealed/...                 contents and names, only where somebody asked and said why
keys/ checkpoints/ consistency/ codes/  what all of that rests on
conflicts/NUMBER-known.note, -told.note what the other agency signed and cannot both be true
report.txt report.pdf README.txt verify.py
"""

import re
from collections.abc import Mapping, Sequence
from dataclasses import dataclass
from datetime import datetime
from hashlib import sha256
from importlib.resources import files
from typing import Any
from uuid import UUID

from cryptography.hazmat.primitives.asymmetric.ed25519 import Ed25519PublicKey
from cryptography.hazmat.primitives.serialization import Encoding, PublicFormat

from schemas import codes
from schemas.canonical import b64, b64_bytes, canonical, format_time, parse
from schemas.checkpoint import Verifier
from schemas.envelope import SigningKey
from schemas.jose import sign_jws
from schemas.party import Party
from services.exchange.store.conflicts import Conflict
from services.proof.gathering import Gathered, Proven
from services.proof.offline import program
from services.proof.store import Message, Recorded

SCHEMA = "noticebus.proof/1"
TYP = "noticebus-proof+jws"
MANIFEST = "manifest.jws"
# The form of a revealed content: the one in which it was encrypted.
REVEALED = re.compile(rb'\{"payload":(\{.*\}),"salt":"([A-Za-z0-9_-]{43})"\}', re.ASCII | re.DOTALL)

# What the codes in records, notices and replies mean.
CODE_LISTS = (
    *("absentia_flags", "actions", "base_cities", "calendar_types"),
    *("dispositions", "nationalities", "offices", "outcomes", "policies", "reasons", "states"),
)


@dataclass(frozen=True, slots=True, kw_only=True)
class About:
    """Who builds a bundle, when, of what; `revealed` if it holds personal data."""

    agency: str
    peer: str
    made_at: datetime
    selection: Mapping[str, str]
    revealed: bool


def members_of(gathered: Gathered, about: About) -> dict[str, bytes]:
    """Return the members that prove something, by name; the manifest and the texts come later."""
    members: dict[str, bytes] = {}
    contents = {each.message_id: each for each in gathered.contents}
    messages, recorded = by_notice(gathered)
    for notice_id in gathered.notices:
        place = f"notices/{notice_id}"
        said: dict[str, Any] = {"notice_id": str(notice_id), "messages": [], "records": []}
        said |= {"not_sealed": 0, "in_former_log": 0}
        for message in messages[notice_id]:
            said["messages"].append(_message(gathered, message, place, members))
            content = contents.get(message.message_id)
            if content is not None:
                members[f"{place}/revealed/{message.message_id}.json"] = (
                    b'{"payload":%b,"salt":"%b"}' % (content.body, b64_bytes(content.salt))
                )
        left_out = [str(m.message_id) for m in gathered.left_out if m.notice_id == notice_id]
        if left_out:
            said["left_out"] = left_out
        openings: dict[str, Any] = {}
        for record in recorded[notice_id]:
            proven = gathered.records.get(record.record_id)
            if proven is None:
                said["in_former_log" if record.former else "not_sealed"] += 1
                continue
            names = _proven(members, f"{place}/records/{proven.index:012d}", proven)
            said["records"].append({"index": proven.index, "action": record.action, **names})
            if about.revealed and record.opened is not None:
                openings[str(proven.index)] = record.opened
        if openings:
            members[f"{place}/revealed/openings.json"] = canonical(openings)
        members[f"{place}/evidence.json"] = canonical(said)
    _keys(gathered, members)
    _checkpoints(gathered, about, members)
    for number, conflict in enumerate(gathered.conflicts, start=1):
        said = _conflict(number, conflict)
        members[said["told"]] = conflict.told_note.encode()
        if "known" in said:
            members[said["known"]] = conflict.known_note.encode()
    for name in CODE_LISTS:
        members[f"codes/{name}.json"] = files("schemas.codes").joinpath(f"{name}.json").read_bytes()
    members["verify.py"] = program()
    return members


def _message(
    gathered: Gathered, message: Message, place: str, members: dict[str, bytes]
) -> dict[str, Any]:
    """Write what there is of one message; return how it is told in `evidence.json`."""
    said: dict[str, Any] = {
        "message_id": str(message.message_id),
        "direction": message.direction,
        "kind": message.kind,
        "stream": message.stream,
        "generation": message.generation,
        "sequence": message.sequence,
        "hash": b64(message.envelope_hash),
    }
    if message.revision is not None:
        said["revision"] = message.revision
    if message.envelope is not None:
        said["envelope"] = f"{place}/messages/{message.message_id}.jws"
        members[said["envelope"]] = message.envelope
    elif message.left is not None:
        said["erased"] = f"{place}/messages/{message.message_id}.erased.jws"
        members[said["erased"]] = message.left
    if message.answer is not None:
        said["answer"] = message.answer
    if message.answer_code is not None:
        said["answer_code"] = message.answer_code
    receipt = gathered.receipts.get(message.message_id)
    if receipt is not None:
        names = _proven(members, f"{place}/receipts/{message.message_id}", receipt)
        said["receipt"] = names | _tied(gathered, message.message_id, members)
    disputed = [each for of, each in gathered.disputed if of == message.message_id]
    if disputed:
        said["disputed"] = {
            "key": disputed[0].kid,
            "claimed_since": format_time(disputed[0].since),
            "cosigned_at": format_time(disputed[0].cosigned_at),
        }
    refusal = gathered.refusals.get(message.message_id)
    if refusal is not None:
        said["refusal"] = f"{place}/messages/{message.message_id}.refusal.jws"
        members[said["refusal"]] = refusal
    return said


def _tied(gathered: Gathered, message_id: UUID, members: dict[str, bytes]) -> dict[str, str]:
    """Write what ties a receipt's checkpoint to another one that was cosigned."""
    found = gathered.ties.get(message_id)
    if found is None:
        return {}
    point, tie = found
    if tie.why_not is not None:
        return {"not_tied": tie.why_not}
    if tie.size == point.size:
        return {}
    log = "-".join(point.origin.rsplit("/", 2)[1:])
    name = f"consistency/{log}-{point.size:012d}-{tie.size:012d}.json"
    members[name] = _consistency(point.origin, point.size, tie.size, tie.proof)
    return {"tied": name}


def _consistency(origin: str, old: int, new: int, proof: Sequence[bytes]) -> bytes:
    return canonical(
        {"origin": origin, "old": old, "new": new, "proof": [b64(node) for node in proof]}
    )


def _proven(members: dict[str, bytes], stem: str, proven: Proven) -> dict[str, str]:
    members[f"{stem}.json"] = proven.record
    members[f"{stem}.tlog"] = proven.proof.encode()
    return {"record": f"{stem}.json", "proof": f"{stem}.tlog"}


def party_name(agency: str, fingerprint: str) -> str:
    """Return the name of a party file's member."""
    return f"keys/{agency}-{fingerprint.removeprefix('sha256:')[:16]}.party.json"


def witnesses_of(gathered: Gathered) -> dict[Verifier, str]:
    """Return the keys of all who cosign, the agencies first, each with the name of its member."""
    found = {
        verifier: f"keys/{row.agency}-cosigner-{verifier.key_id.hex()}.pem"
        for row in gathered.parties
        for verifier in Party.from_bytes(row.party).cosigners()
    }
    for verifier in map(Verifier.parse, gathered.witnesses):
        found.setdefault(verifier, f"keys/witness-{verifier.key_id.hex()}.pem")
    return found


def _note_pem(verifier: Verifier) -> bytes:
    public = Ed25519PublicKey.from_public_bytes(verifier.public)
    return public.public_bytes(Encoding.PEM, PublicFormat.SubjectPublicKeyInfo)


def _keys(gathered: Gathered, members: dict[str, bytes]) -> None:
    """Write party files as they were trusted, and their keys once more in the usual forms."""
    jwks: dict[str, Any] = {}
    vkeys: list[str] = []
    for row in gathered.parties:
        party = Party.from_bytes(row.party)
        members[party_name(row.agency, row.fingerprint)] = row.party
        jwks |= {key.kid: key.model_dump() for key in party.jwks.keys}
        for kid, key in party.verify_keys().items():
            members[f"keys/{row.agency}-sign-{kid[:16]}.pem"] = key.public.public_bytes(
                Encoding.PEM, PublicFormat.SubjectPublicKeyInfo
            )
        for verifier in party.log_verifiers():
            members[f"keys/{row.agency}-log-{verifier.key_id.hex()}.pem"] = _note_pem(verifier)
            vkeys.append(verifier.vkey())
        vkeys += party.cosigner_keys
    for verifier, name in witnesses_of(gathered).items():
        members[name] = _note_pem(verifier)
    vkeys += gathered.witnesses
    members["keys/jwks.json"] = canonical({"keys": [jwks[kid] for kid in sorted(jwks)]})
    members["keys/vkeys.txt"] = "".join(f"{vkey}\n" for vkey in sorted(set(vkeys))).encode()
    for record in gathered.key_records:
        if record.record_id in gathered.records:
            proven = gathered.records[record.record_id]
            _proven(members, f"keys/records/{proven.index:012d}", proven)


def _checkpoints(gathered: Gathered, about: About, members: dict[str, bytes]) -> None:
    for size, note in gathered.notes.items():
        members[f"checkpoints/{about.agency}-{_generation(note)}-{size:012d}.note"] = note.encode()
        if size != gathered.size:
            members[f"consistency/{about.agency}-{size:012d}-{gathered.size:012d}.json"] = (
                _consistency(gathered.origin, size, gathered.size, gathered.consistency[size])
            )
    for _, size, note in gathered.peer_notes:
        members[f"checkpoints/{about.peer}-{_generation(note)}-{size:012d}.note"] = note.encode()


def _conflict(number: int, conflict: Conflict) -> dict[str, Any]:
    """Return how a manifest tells of what the peer signed and cannot both be true."""
    stem = f"conflicts/{number:03d}"
    said = {
        "code": conflict.code,
        "origin": conflict.origin,
        "size": conflict.size,
        "found_at": format_time(conflict.found_at),
        "told": f"{stem}-told.note",
    }
    # What contradicts an empty log has nothing before it.
    return {**said, "known": f"{stem}-known.note"} if conflict.known_note else said


def _generation(note: str) -> str:
    return note.partition("\n")[0].rpartition("/")[2]


def manifest_of(
    gathered: Gathered, about: About, members: Mapping[str, bytes], signing: SigningKey
) -> bytes:
    """Return the manifest: a JWS, by the key that signs envelopes, over what the bundle holds."""
    conflicts = [_conflict(number, each) for number, each in enumerate(gathered.conflicts, start=1)]
    said = {
        "schema": SCHEMA,
        "made_at": format_time(about.made_at),
        "agency": about.agency,
        "peer": about.peer,
        "origin": gathered.origin,
        "size": gathered.size,
        "revealed": about.revealed,
        "selection": dict(about.selection),
        "notices": [str(notice_id) for notice_id in gathered.notices],
        "parties": [
            {
                "agency": row.agency,
                "fingerprint": row.fingerprint,
                "status": row.status,
                "member": party_name(row.agency, row.fingerprint),
            }
            for row in gathered.parties
        ],
        **({"witnesses": list(gathered.witnesses)} if gathered.witnesses else {}),
        **({"conflicts": conflicts} if conflicts else {}),
        "policies": policies_of(gathered),
        "code_lists": {name: _as_of(name) for name in CODE_LISTS},
        "members": {name: sha256(members[name]).hexdigest() for name in sorted(members)},
    }
    return sign_jws(canonical(said), signing, TYP, deterministic=True)


def _as_of(name: str) -> str:
    """Return of which day a code list is."""
    listed: codes.CodeList[Any] = getattr(codes, name)()
    return listed.as_of


def policies_of(gathered: Gathered) -> list[str]:
    """Return the policy versions that the records name, and the one in force."""
    named = {str(parse(each.record).get("policy")) for each in gathered.recorded}
    return sorted(named - {"None"} | {codes.policy().version})


def by_notice(
    gathered: Gathered,
) -> tuple[Mapping[UUID, Sequence[Message]], Mapping[UUID, Sequence[Recorded]]]:
    """Return messages and records of each notice, in their order."""
    messages: dict[UUID, list[Message]] = {each: [] for each in gathered.notices}
    recorded: dict[UUID, list[Recorded]] = {each: [] for each in gathered.notices}
    for message in gathered.messages:
        messages[message.notice_id].append(message)
    for record in gathered.recorded:
        if record.notice_id is not None:
            recorded[record.notice_id].append(record)
    return messages, recorded
