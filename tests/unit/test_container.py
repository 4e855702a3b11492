"""The file of backups: read back as written, refused when anything in it was changed."""

import io
from collections.abc import Mapping
from datetime import UTC, datetime
from pathlib import Path

import pytest
from cryptography.hazmat.primitives.asymmetric import ec
from hypothesis import HealthCheck, given, settings
from hypothesis import strategies as st

from schemas.errors import EvidenceError, NotAllowedError, NoticeBusError, RejectedError
from schemas.jose import PrivateKey, PublicEncryptionKey, SigningKey, VerifyKey
from services.backup import container
from services.backup.container import Block, Content, Ended, Event, Header, Signed

OURS = PrivateKey.of(ec.generate_private_key(ec.SECP256R1()))
SIGNING = SigningKey.of(ec.generate_private_key(ec.SECP256R1()))
OWN = "//ice.noticebus.example/noticebus/ice"
PARTS = {"first": b"some rows", "empty": b"", "large": bytes(range(256)) * 2_000}


def written(
    *, signing: SigningKey = SIGNING, to: PrivateKey = OURS, parts: Mapping[str, bytes] = PARTS
) -> bytes:
    """Return the bytes of a file."""
    file = io.BytesIO()
    header = Header(
        content=Content.BACKUP,
        sender=OWN,
        recipient=OWN,
        made_at=datetime(2026, 11, 23, tzinfo=UTC),
        about={"agency": "ice"},
    )
    public = PublicEncryptionKey.of(to.private.public_key())
    writer = container.write_header(file, header, to=public, signing=signing)
    for name, data in parts.items():
        writer.begin(name, columns=["a"])
        for at in range(0, len(data), 100_000):
            writer.write(data[at : at + 100_000])
        writer.end(rows=len(data))
    writer.finish()
    return file.getvalue()


def read(path: Path, data: bytes, *, expected: Content = Content.BACKUP) -> list[Event]:
    """Return every event of these bytes."""
    path.write_bytes(data)
    signers = {SIGNING.kid: VerifyKey.of(SIGNING.private.public_key(), owner=OWN)}
    return list(container.read(path, keys={OURS.kid: OURS}, signers=signers, expected=expected))


def chunks(data: bytes) -> tuple[bytes, list[bytes]]:
    """Return a file's header and its chunks with their lengths."""
    head = b"\n".join(data.split(b"\n", 2)[:2]) + b"\n"
    rest, found = data[len(head) :], []
    while rest:
        end = 4 + int.from_bytes(rest[:4], "big")
        found.append(rest[:end])
        rest = rest[end:]
    return head, found


def test_a_file_is_read_as_it_was_written(tmp_path: Path) -> None:
    events = read(tmp_path / "f", written())

    content = dict.fromkeys(PARTS, b"")
    name = ""
    for event in events:
        if isinstance(event, container.Part):
            name = event.name
        elif isinstance(event, Block):
            content[name] += event.data
    assert content == PARTS
    ended = [event.part for event in events if isinstance(event, Ended)]
    assert [(part.name, part.rows) for part in ended] == [(n, len(d)) for n, d in PARTS.items()]
    last = events[-1]
    assert isinstance(last, Signed)
    assert (last.parts, last.kid) == (tuple(ended), SIGNING.kid)


def test_a_part_is_read_in_pieces_however_large_it_is(tmp_path: Path) -> None:
    blocks = [e.data for e in read(tmp_path / "f", written()) if isinstance(e, Block)]

    assert max(map(len, blocks)) <= container.BLOCK_BYTES
    assert len(blocks) == 1 + 2  # the empty part has none, the large one fills one and a bit


def test_nothing_of_the_content_stands_in_clear(tmp_path: Path) -> None:
    assert b"some rows" not in written()


WHOLE = written()


@settings(max_examples=60, suppress_health_check=[HealthCheck.function_scoped_fixture])
@given(at=st.integers(0, len(WHOLE) - 1), bit=st.integers(0, 7))
def test_any_bit_that_is_flipped_is_found(tmp_path: Path, at: int, bit: int) -> None:
    spoilt = bytearray(WHOLE)
    spoilt[at] ^= 1 << bit

    with pytest.raises(NoticeBusError) as refused:
        read(tmp_path / "f", bytes(spoilt))

    assert refused.value.code in {"NB-3061", "NB-5040", "NB-5041", "NB-5043"}


@settings(max_examples=40, suppress_health_check=[HealthCheck.function_scoped_fixture])
@given(at=st.integers(len(WHOLE.split(b"\n", 2)[0]) + 1, len(WHOLE) - 1))
def test_a_file_that_is_cut_short_is_found(tmp_path: Path, at: int) -> None:
    with pytest.raises(EvidenceError, match="NB-3061"):
        read(tmp_path / "f", WHOLE[:at])


@pytest.mark.parametrize("change", ["swap", "drop", "repeat", "drop last", "append"])
def test_chunks_that_are_moved_are_found(tmp_path: Path, change: str) -> None:
    head, parts = chunks(WHOLE)
    match change:
        case "swap":
            parts[1], parts[2] = parts[2], parts[1]
        case "drop":
            del parts[1]
        case "repeat":
            parts.insert(1, parts[1])
        case "drop last":
            del parts[-1]
        case _:
            parts.append(parts[0])

    with pytest.raises(EvidenceError, match="NB-3061"):
        read(tmp_path / "f", head + b"".join(parts))


def test_chunks_of_one_file_do_not_fit_another(tmp_path: Path) -> None:
    head, _ = chunks(WHOLE)
    _, others = chunks(written())

    with pytest.raises(EvidenceError, match="NB-3061"):
        read(tmp_path / "f", head + b"".join(others))


def test_a_file_that_anybody_encrypted_to_us_is_not_believed(tmp_path: Path) -> None:
    forger = SigningKey.of(ec.generate_private_key(ec.SECP256R1()))

    with pytest.raises(EvidenceError, match="NB-3062"):
        read(tmp_path / "f", written(signing=forger))


def test_a_file_for_another_key_ring_says_which_key_it_needs(tmp_path: Path) -> None:
    other = PrivateKey.of(ec.generate_private_key(ec.SECP256R1()))

    with pytest.raises(NotAllowedError, match="NB-5043") as refused:
        read(tmp_path / "f", written(to=other))

    assert refused.value.where["kid"] == other.kid


@pytest.mark.parametrize(
    ("data", "code"),
    [
        (b"", "NB-5041"),
        (b"PGDMP\x01\x0f", "NB-5041"),
        (b"noticebus-container/x\n{}\n", "NB-5041"),
        (b"noticebus-container/2\n{}\n", "NB-5040"),
    ],
)
def test_what_is_no_file_of_this_version_is_told_apart(
    tmp_path: Path, data: bytes, code: str
) -> None:
    with pytest.raises(RejectedError, match=code):
        read(tmp_path / "f", data)


def test_a_backup_is_no_archive(tmp_path: Path) -> None:
    with pytest.raises(RejectedError, match="NB-5041"):
        read(tmp_path / "f", WHOLE, expected=Content.ARCHIVE)


def test_a_file_that_cannot_be_read_is_told(tmp_path: Path) -> None:
    with pytest.raises(RejectedError, match="NB-5049"):
        container.read_header(tmp_path / "absent")
