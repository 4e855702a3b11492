"""The zip that a bundle is: the same members make the same bytes, and nothing odd is read.

Members are stored, not compressed, in order of their names and under one fixed time. Reading is
bounded before anything is unpacked: size, number, names that lead out of the folder, twins.
"""

import io
import re
import zipfile
import zlib
from collections.abc import Mapping
from pathlib import Path

from schemas.errors import EvidenceError, RejectedError

ARCHIVE_BYTES_MAX = 512 * 1024 * 1024
MEMBER_BYTES_MAX = 16 * 1024 * 1024
MEMBERS_MAX = 200_000

_FIRST_TIME = (1980, 1, 1, 0, 0, 0)
_FILE_MODE = 0o100644 << 16
_NAME = re.compile(r"[a-zA-Z0-9][a-zA-Z0-9._-]*(/[a-zA-Z0-9][a-zA-Z0-9._-]*)*", re.ASCII)


def packed(members: Mapping[str, bytes]) -> bytes:
    """Return the zip of these members."""
    made = io.BytesIO()
    with zipfile.ZipFile(made, "w", zipfile.ZIP_STORED) as archive:
        for name in sorted(members):
            about = zipfile.ZipInfo(name, _FIRST_TIME)
            about.external_attr = _FILE_MODE
            # The same on every system that builds one.
            about.create_system = 3
            archive.writestr(about, members[name])
    return made.getvalue()


def unpacked(path: Path) -> dict[str, bytes]:
    """Return the members of a bundle by name; nothing is believed of them yet.

    Raises `RejectedError` NB-3101 for what is no zip, NB-3102 for what is too large,
    `EvidenceError` NB-3103 for a member that no bundle has, NB-3100 for one that was changed.
    """
    try:
        if path.stat().st_size > ARCHIVE_BYTES_MAX:
            raise RejectedError("NB-3102", path=path)
        with zipfile.ZipFile(path) as archive:
            return _read(archive, path)
    except (
        OSError,
        EOFError,
        zipfile.BadZipFile,
        zlib.error,
        NotImplementedError,
        RuntimeError,
    ) as error:
        cause = getattr(error, "strerror", None) or "its structure is spoilt"
        raise RejectedError("NB-3101", path=path, cause=cause) from None


def _read(archive: zipfile.ZipFile, path: Path) -> dict[str, bytes]:
    members = archive.infolist()
    total = sum(about.file_size for about in members)
    if len(members) > MEMBERS_MAX or total > ARCHIVE_BYTES_MAX:
        raise RejectedError("NB-3102", path=path)
    found: dict[str, bytes] = {}
    for about in members:
        if not _NAME.fullmatch(about.filename):
            raise EvidenceError("NB-3103", path=path, rule="has a name that leads elsewhere")
        if about.filename in found:
            raise EvidenceError("NB-3103", path=path, rule="is there twice")
        if about.file_size > MEMBER_BYTES_MAX:
            raise RejectedError("NB-3102", path=path)
        try:
            with archive.open(about) as member:
                # No more than it says of itself, whatever comes out of it.
                found[about.filename] = member.read(MEMBER_BYTES_MAX + 1)
        except (zipfile.BadZipFile, zlib.error):
            rule = "it was changed: its checksum in the zip is another"
            raise EvidenceError("NB-3100", member=about.filename, rule=rule) from None
        if len(found[about.filename]) != about.file_size:
            raise EvidenceError("NB-3103", path=path, rule="is longer than it says")
    return found
