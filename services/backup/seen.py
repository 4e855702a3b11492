"""What one agency has seen of the other, as a file that fills what a restore lost.

It names the highest sequence of every stream that was read, and holds the exact bytes of what was
received since a time, with the content that the other agency itself had signed. So nothing in it
has to be believed: each message proves its maker, each content its commitment. It is encrypted to
the agency that it is for, and signed by the one that wrote it, because only that says that it is
all of it.
"""

from collections.abc import Iterator
from dataclasses import dataclass
from datetime import UTC, datetime, timedelta
from pathlib import Path
from typing import Any

from schemas.canonical import b64, canonical, format_time, parse, unb64
from schemas.envelope import source_of
from schemas.errors import EvidenceError, RejectedError
from services.backup import container
from services.backup.container import Block, Content, Ended, Header, Part, Signed
from services.backup.files import new_file
from services.backup.store import seen as store
from services.backup.store.snapshot import PASS_SECONDS, begin_snapshot
from services.exchange.agency import Agency, Directory
from services.keys import KeyRing
from services.ledger.records import make_record
from services.ledger.store import append

# Two clocks, and what was under way when a backup was made.
MARGIN = timedelta(hours=1)


@dataclass(frozen=True, slots=True)
class Reached:
    """How far a stream was read, or written, in one generation."""

    stream: str
    generation: int
    highest: int


@dataclass(frozen=True, slots=True)
class Streams:
    """What the writer has `read` of ours, and what it `wrote` to us; the generation it knows."""

    read: tuple[Reached, ...]
    wrote: tuple[Reached, ...]
    generation: int
    since: datetime | None


@dataclass(frozen=True, slots=True)
class Received:
    """A message as the other agency received it; content and salt unless they are erased."""

    envelope: bytes
    salt: bytes | None
    body: bytes | None


async def tell(agency: Agency, path: Path, *, since: datetime | None, actor: str) -> int:
    """Write what we have seen of the peer since a time; returns how many messages.

    Raises what `files.new_file` raises, `UnavailableError` NB-4011 before the peer is trusted.
    """
    peer = agency.directory.newest
    header = Header(
        content=Content.SEEN,
        sender=agency.source,
        recipient=peer.source if peer is not None else "",
        made_at=datetime.now(UTC),
        about={"agency": agency.name},
    )
    count = 0
    with new_file(path) as file:
        async with agency.store.transaction(seconds=PASS_SECONDS) as tx:
            await begin_snapshot(tx)
            writer = container.write_header(
                file, header, to=agency.directory.encrypt_to, signing=agency.ring.signing
            )
            read, wrote = await store.reached(tx)
            writer.begin(
                "streams",
                read=read,
                wrote=wrote,
                generation=peer.generation if peer is not None else 1,
                since=format_time(since) if since is not None else None,
            )
            writer.end(rows=len(read) + len(wrote))
            writer.begin("messages")
            async for envelope, salt, body in store.received(
                tx, since=None if since is None else since - MARGIN
            ):
                line = {
                    "envelope": envelope.decode("ascii"),
                    "salt": None if salt is None else b64(salt),
                    "body": None if body is None else b64(body),
                }
                writer.write(canonical(line) + b"\n")
                count += 1
            writer.end(rows=count)
        digest = writer.finish()
    record = make_record(
        "db.seen",
        time=datetime.now(UTC),
        actor=actor,
        detail={"seen": b64(digest), "messages": count, "to": agency.peer},
    )
    async with agency.store.transaction() as tx:
        await append(tx, [record])
    return count


def check(path: Path, ring: KeyRing, directory: Directory, *, peer: str) -> Streams:
    """Read a whole file and return its streams; `messages` may follow.

    Raises what `container.read` raises, `RejectedError` NB-5042 when it is for another agency.
    """
    header = container.read_header(path)
    own = source_of(ring.domain, ring.agency)
    if header.content is not Content.SEEN:
        raise RejectedError("NB-5041", path=path, expected=Content.SEEN)
    if header.recipient != own:
        raise RejectedError("NB-5042", path=path, found=header.recipient, agency=own)
    streams: Streams | None = None
    for event in _events(path, ring, directory):
        if isinstance(event, Part) and event.name == "streams":
            streams = _streams(event.about, path)
    if streams is None or header.about.get("agency") != peer:
        raise EvidenceError("NB-3061", path=path, rule="it does not name its streams")
    return streams


def messages(path: Path, ring: KeyRing, directory: Directory) -> Iterator[Received]:
    """Yield the messages of a file that was checked, in order of stream and sequence."""
    rest = b""
    for event in _events(path, ring, directory):
        match event:
            case Block():
                *lines, rest = (rest + event.data).split(b"\n")
                for line in lines:
                    yield _received(line, path)
            case Part() | Ended() | Signed():
                continue


def _events(path: Path, ring: KeyRing, directory: Directory) -> Iterator[container.Event]:
    # A file has no place in a stream that a former key might still reach: it is made again.
    signers = {
        kid: key for kid, key in directory.verify_keys.items() if kid not in directory.endings
    }
    return container.read(path, keys=ring.opening_files(), signers=signers, expected=Content.SEEN)


def _streams(about: Any, path: Path) -> Streams:
    try:
        since = about["since"]
        return Streams(
            tuple(Reached(*each) for each in about["read"]),
            tuple(Reached(*each) for each in about["wrote"]),
            int(about["generation"]),
            None if since is None else datetime.fromisoformat(since),
        )
    except (KeyError, TypeError, ValueError):
        raise EvidenceError("NB-3061", path=path, rule="it does not name its streams") from None


def _received(line: bytes, path: Path) -> Received:
    try:
        said = parse(line)
        salt, body = said["salt"], said["body"]
        return Received(
            envelope=said["envelope"].encode("ascii"),
            salt=None if salt is None else unb64(salt),
            body=None if body is None else unb64(body),
        )
    except (RejectedError, KeyError, TypeError, AttributeError):
        raise EvidenceError("NB-3061", path=path, rule="a message of it is spoilt") from None
