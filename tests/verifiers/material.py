"""Material of a real run for verifiers: what each agency could hand to an outsider, as files.

Two agencies on real servers exchange notices; HHS' log is exported as anybody would do it, and the
rest is read out of both stores: bytes that crossed the border, proofs, checkpoints, public keys.
The private key that opens the content is there too, since a recipient has it: it was made for
this run. `spoil` changes one thing in a copy.
"""

import asyncio
import base64
import json
import shutil
from collections.abc import Callable
from functools import partial
from pathlib import Path
from uuid import UUID

from cryptography.hazmat.primitives.asymmetric.ed25519 import Ed25519PublicKey
from cryptography.hazmat.primitives.serialization import (
    Encoding,
    NoEncryption,
    PrivateFormat,
    PublicFormat,
)

from schemas.canonical import b64
from schemas.cosignature import cosigner, with_cosignatures
from schemas.envelope import open_data, read, verify
from schemas.proof import tlog_proof
from services.embedded import PostgresServer, RedisServer
from services.exchange.store import heads
from services.ledger import tree
from services.ledger.export import export
from services.ledger.store import log, migrate
from tests.agencies import Pair, a_notice, accept, answered, two_agencies, until, value
from tests.steps import settled

NOTICES = 300
FIRST_NOTICES = 40
# Nothing is overdue on a machine that is slow.
_PATIENT = {"poll_seconds": 0.5, "answer_seconds": 120}
SCHEMAS = Path(__file__).parents[2] / "schemas" / "json"


def make(folder: Path) -> None:
    """Run two agencies on servers of their own and leave their material in `folder`."""
    work = folder.with_name("agencies")
    work.mkdir()
    folder.mkdir()
    with (
        RedisServer(work / "redis") as redis,
        PostgresServer(work / "ice") as ice,
        PostgresServer(work / "hhs") as hhs,
    ):
        for name, server in (("ice", ice), ("hhs", hhs)):
            migrate(server.url, name)
        urls = {"ice": ice.url, "hhs": hhs.url}
        asyncio.run(_make(folder, work, urls.__getitem__, redis.url))
    shutil.rmtree(work)


async def _make(folder: Path, home: Path, url: Callable[[str], str], redis_url: str) -> None:
    async with two_agencies(home, url, redis_url, relay=_PATIENT) as pair:
        async with pair.running():
            for count in (FIRST_NOTICES, NOTICES - FIRST_NOTICES):
                drafts = [a_notice() for _ in range(count)]
                await accept(pair.ice, *drafts)
                await until(partial(answered, pair.ice, drafts), "every receipt")
            await until(partial(settled, pair), "cosignatures", seconds=120)
        await _logs(pair, folder)
        await _messages(pair, folder)
    shutil.copytree(SCHEMAS, folder / "schemas")


async def _logs(pair: Pair, folder: Path) -> None:
    """Write HHS' log, two of its checkpoints, and the proofs that join them to a receipt.

    The newest checkpoint is there once more with ICE's cosignature, under which the receipt stands.
    """
    store = pair.hhs.store
    await export(store, folder / "log", entries=True, actor="inspector")
    vkey = pair.hhs.ring.log_key.verifier
    (folder / "vkey").write_text(vkey.vkey() + "\n")
    key = Ed25519PublicKey.from_public_bytes(vkey.public)
    (folder / "log-key.pem").write_bytes(
        key.public_bytes(Encoding.PEM, PublicFormat.SubjectPublicKeyInfo)
    )
    note = (folder / "log" / "checkpoint").read_text()
    size = int(note.splitlines()[1])
    async with store.transaction() as tx:
        covered = await log.checkpoint_covering(tx, FIRST_NOTICES)
        assert covered is not None
        older, older_note = covered
        consistency = await tree.consistency(tx, older, size)
        found = await (
            await tx.execute(
                "SELECT e.record_index, r.record FROM log_entry AS e JOIN record AS r"
                " USING (record_id) WHERE r.action = 'message.received'"
                " ORDER BY e.record_index OFFSET 20 LIMIT 1"
            )
        ).fetchone()
        assert found is not None
        index, record = int(found[0]), bytes(found[1])
        proof = await tree.inclusion(tx, index, size)
        root = await tree.root_at(tx, size)
        lines = [each.line for each in await heads.cosignatures_of(tx, size)]
        older_root = await tree.root_at(tx, older)
    assert 0 < older < size
    assert lines
    cosigned = with_cosignatures(note, lines)
    witness = cosigner(pair.ice.ring.cosigner)
    (folder / "older-checkpoint").write_text(older_note)
    (folder / "cosigned-checkpoint").write_text(cosigned)
    (folder / "witness-vkey").write_text(witness.vkey() + "\n")
    key = Ed25519PublicKey.from_public_bytes(witness.public)
    (folder / "witness-key.pem").write_bytes(
        key.public_bytes(Encoding.PEM, PublicFormat.SubjectPublicKeyInfo)
    )
    (folder / "record.json").write_bytes(record)
    (folder / "record.tlog-proof").write_text(tlog_proof(index, proof, cosigned))
    _json(
        folder / "proofs.json",
        {
            "index": index,
            "size": size,
            "root": root.hex(),
            "inclusion": [node.hex() for node in proof],
            "older_size": older,
            "older_root": older_root.hex(),
            "consistency": [node.hex() for node in consistency],
        },
    )


async def _messages(pair: Pair, folder: Path) -> None:
    """Write a notice as it crossed the border, its content, and the answer that came back."""
    ice, hhs = pair.ice, pair.hhs
    find = "SELECT message_id FROM sent WHERE kind = 'fta' ORDER BY sequence OFFSET 20 LIMIT 1"
    notice = await value(ice, find)
    assert isinstance(notice, UUID)
    jws = await value(ice, "SELECT envelope FROM envelope WHERE message_id = %s", notice)
    answer = await value(
        ice,
        "SELECT envelope FROM envelope WHERE message_id ="
        " (SELECT answer_message FROM sent WHERE message_id = %s)",
        notice,
    )
    assert isinstance(jws, bytes)
    assert isinstance(answer, bytes)
    envelope = verify(read(jws), hhs.directory.verify_keys)
    opened = open_data(envelope, hhs.ring.decryption)
    receipts = verify(read(answer), ice.directory.verify_keys)
    assert isinstance(envelope.data, str)
    (folder / "envelope.jws").write_bytes(jws)
    (folder / "event.json").write_bytes(read(jws).payload)
    (folder / "content.jwe").write_text(envelope.data)
    (folder / "content.json").write_bytes(
        b'{"payload":%b,"salt":"%b"}' % (opened.body, b64(opened.salt).encode())
    )
    (folder / "fta.json").write_bytes(opened.body)
    (folder / "receipts.json").write_bytes(receipts.plain())
    for name, agency in (("ice", ice), ("hhs", hhs)):
        (folder / f"{name}-party.json").write_bytes(agency.ring.party())
    party = json.loads((folder / "ice-party.json").read_bytes())
    signing = next(key for key in party["jwks"]["keys"] if key["use"] == "sig")
    _json(folder / "signing.jwk", signing)
    (folder / "signing.pem").write_bytes(
        ice.ring.signing.private.public_key().public_bytes(
            Encoding.PEM, PublicFormat.SubjectPublicKeyInfo
        )
    )
    private = next(iter(hhs.ring.decryption.values())).private
    (folder / "decryption.pem").write_bytes(
        private.private_bytes(Encoding.PEM, PrivateFormat.PKCS8, NoEncryption())
    )
    numbers = private.private_numbers()
    own = json.loads((folder / "hhs-party.json").read_bytes())
    public = next(key for key in own["jwks"]["keys"] if key["use"] == "enc")
    _json(
        folder / "decryption.jwk",
        {**public, "d": b64(numbers.private_value.to_bytes(32, "big"))},
    )


def _json(path: Path, content: object) -> None:
    path.write_text(json.dumps(content, indent=1) + "\n")


def _other_byte(name: str, place: int) -> Callable[[Path], None]:
    """Return what changes one byte of a file, counted from its end if negative."""

    def change(folder: Path) -> None:
        content = bytearray((folder / name).read_bytes())
        content[place] ^= 0x01
        (folder / name).write_bytes(content)

    return change


def _other_text(name: str, change: Callable[[str], str]) -> Callable[[Path], None]:
    def rewrite(folder: Path) -> None:
        before = (folder / name).read_text()
        after = change(before)
        assert after != before, name
        (folder / name).write_text(after)

    return rewrite


def _other_hash(member: str) -> Callable[[Path], None]:
    def change(folder: Path) -> None:
        proofs = json.loads((folder / "proofs.json").read_text())
        first = proofs[member][0]
        proofs[member][0] = ("0" if first[0] != "0" else "1") + first[1:]
        _json(folder / "proofs.json", proofs)

    return change


def _without(name: str, member: str) -> Callable[[Path], None]:
    def drop(folder: Path) -> None:
        content = json.loads((folder / name).read_text())
        del content[member]
        (folder / name).write_text(json.dumps(content))

    return drop


def _other_character(parts: int) -> Callable[[str], str]:
    """Return what changes one character within a part of a compact token, counted by its dots."""

    def change(text: str) -> str:
        pieces = text.split(".")
        middle = len(pieces[parts]) // 2
        letter = "A" if pieces[parts][middle] != "A" else "B"
        pieces[parts] = pieces[parts][:middle] + letter + pieces[parts][middle + 1 :]
        return ".".join(pieces)

    return change


def _size(text: str) -> str:
    origin, size, rest = text.split("\n", 2)
    return f"{origin}\n{int(size) + 1}\n{rest}"


def _later(text: str) -> str:
    """Let a cosignature, the last line of a note, tell of a minute later."""
    line, raw = text.rstrip("\n").rpartition(" ")[::2]
    said = bytearray(base64.b64decode(raw))
    said[4:12] = (int.from_bytes(said[4:12], "big") + 60).to_bytes(8, "big")
    return f"{line} {base64.b64encode(said).decode()}\n"


def _other_proof(change: Callable[[int, list[str]], tuple[int, list[str]]]) -> Callable[[str], str]:
    """Return what changes index and hashes of a tlog-proof."""

    def rewrite(text: str) -> str:
        head, _, note = text.partition("\n\n")
        title, index, *hashes = head.split("\n")
        number, hashes = change(int(index.split()[1]), hashes)
        return "\n".join([title, f"index {number}", *hashes]) + "\n\n" + note

    return rewrite


def _signature(text: str) -> str:
    lines = text.split("\n")
    middle = len(lines[-2]) - 20
    letter = "A" if lines[-2][middle] != "A" else "B"
    lines[-2] = lines[-2][:middle] + letter + lines[-2][middle + 1 :]
    return "\n".join(lines)


# What one change is called, and what it does to a copy.
SPOILT: dict[str, Callable[[Path], None]] = {
    "a byte of the record": _other_byte("record.json", 40),
    "a hash of its inclusion proof": _other_hash("inclusion"),
    "a hash of the consistency proof": _other_hash("consistency"),
    "the checkpoint's size": _other_text("log/checkpoint", _size),
    "the checkpoint's signature": _other_text("log/checkpoint", _signature),
    "the cosignature": _other_text("cosigned-checkpoint", _signature),
    "the cosignature's time": _other_text("cosigned-checkpoint", _later),
    "the cosigned size": _other_text("cosigned-checkpoint", _size),
    "the tlog-proof's cosignature": _other_text("record.tlog-proof", _signature),
    "the tlog-proof's time": _other_text("record.tlog-proof", _later),
    "the tlog-proof's index": _other_text(
        "record.tlog-proof", _other_proof(lambda index, hashes: (index + 1, hashes))
    ),
    "a hash of the tlog-proof": _other_text(
        "record.tlog-proof", _other_proof(lambda index, hashes: (index, hashes[::-1]))
    ),
    "the older checkpoint's size": _other_text("older-checkpoint", _size),
    "a byte of a full hash tile": _other_byte("log/tile/0/000", 70),
    "a byte of an entry": _other_byte("log/tile/entries/000", 1000),
    "a character of the envelope": _other_text("envelope.jws", _other_character(1)),
    "a character of its signature": _other_text("envelope.jws", _other_character(2)),
    "a character of the ciphertext": _other_text("content.jwe", _other_character(3)),
    "a character of the content key": _other_text("content.jwe", _other_character(1)),
    "the event's type": _without("event.json", "type"),
    "the event's source": _without("event.json", "source"),
    "a member of the notice": _without("fta.json", "notice_id"),
    "a member of the receipts": _without("receipts.json", "checkpoint"),
    "a blank in the record": _other_text("record.json", lambda text: text.replace(":", ": ", 1)),
    "the order in the notice": _other_text(
        "fta.json",
        lambda text: json.dumps(
            dict(reversed(json.loads(text).items())), separators=(",", ":"), ensure_ascii=False
        ),
    ),
    "a reference of the description": _other_text(
        "schemas/asyncapi.yaml", lambda text: text.replace("#/components/messages/", "#/nowhere/")
    ),
    "the description's version": _other_text(
        "schemas/asyncapi.yaml", lambda text: text.replace("asyncapi: 3", "asyncapi: 9", 1)
    ),
}


def spoil(folder: Path, name: str, copy: Path) -> None:
    """Copy the material with one thing changed."""
    shutil.copytree(folder, copy)
    SPOILT[name](copy)
