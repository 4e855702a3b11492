"""A bundle as files: a zip, or the folder that one was unpacked into. Nothing is believed yet."""

import re
import zipfile
import zlib
from pathlib import Path

from services.proof.offline.arithmetic import CannotCheck, Failed, demand

BYTES_MAX = 512 * 1024 * 1024
MEMBER_BYTES_MAX = 16 * 1024 * 1024
NAME = re.compile(r"[a-zA-Z0-9][a-zA-Z0-9._-]*(/[a-zA-Z0-9][a-zA-Z0-9._-]*)*", re.ASCII)


def members_of(place: Path) -> dict[str, bytes]:
    """Return the members of a zip or of a folder by name."""
    try:
        if place.is_dir():
            return of_folder(place)
        with place.open("rb"):
            pass
    except OSError as error:
        raise CannotCheck(f"{place} cannot be read: {error.strerror}") from None
    try:
        demand(place.stat().st_size <= BYTES_MAX, place, "is too large")
        with zipfile.ZipFile(place) as archive:
            members = archive.infolist()
            demand(sum(each.file_size for each in members) <= BYTES_MAX, place, "is too large")
            found: dict[str, bytes] = {}
            for each in members:
                leads = NAME.fullmatch(each.filename) is None
                demand(not leads, place, "has a member whose name leads elsewhere")
                demand(each.filename not in found, each.filename, "is there twice")
                demand(each.file_size <= MEMBER_BYTES_MAX, each.filename, "is too large")
                try:
                    found[each.filename] = archive.read(each)
                except (zipfile.BadZipFile, zlib.error):
                    raise Failed(f"{each.filename}: was changed, its checksum is another") from None
            return found
    except (OSError, EOFError, zipfile.BadZipFile, zlib.error, NotImplementedError, RuntimeError):
        raise Failed(f"{place}: is not a zip that can be read") from None


def of_folder(place: Path) -> dict[str, bytes]:
    """Return the files below a folder by their names in the bundle."""
    found: dict[str, bytes] = {}
    for path in sorted(place.rglob("*")):
        if path.is_file():
            name = path.relative_to(place).as_posix()
            demand(path.stat().st_size <= MEMBER_BYTES_MAX, name, "is too large")
            found[name] = path.read_bytes()
    return found
