"""Selections that people keep under a name, to plan the same again."""

import re
from collections.abc import Mapping
from dataclasses import dataclass
from datetime import UTC, datetime
from hashlib import sha256

from schemas.canonical import b64, canonical
from schemas.errors import NotFoundError, RejectedError
from services.ledger.records import make_record
from services.ledger.store import Store, append
from services.replay.selection import Selection
from services.replay.store import queries
from services.replay.store.queries import QueryRow

_AGES = "ages"
_NAME = re.compile(r"[a-z0-9][a-z0-9-]{0,63}")


@dataclass(frozen=True, slots=True, kw_only=True)
class Saved:
    """A selection under its name; `source` is what `--from` takes.

    `ages` has an end of the time that is counted from whenever it is planned, as `7d`, by the
    name of that end (`since`, `until`); the selection then lacks it.
    """

    name: str
    source: str
    selection: Selection
    ages: Mapping[str, str]
    saved_at: datetime
    saved_by: str


async def save(
    database: Store,
    name: str,
    selection: Selection,
    *,
    source: str,
    actor: str,
    ages: Mapping[str, str] | None = None,
) -> None:
    """Keep a selection under a name, in the place of another of that name; on record.

    An end of the time that is in `ages` is kept as that age, and not as the moment it means now.
    Raises `RejectedError` NB-7005 for a name of other than small letters, digits and hyphens.
    """
    check_name(name)
    now, relative = datetime.now(UTC), dict(ages or {})
    said = {key: value for key, value in selection.written().items() if key not in relative}
    if relative:
        said[_AGES] = relative
    async with database.transaction() as tx:
        row = QueryRow(name=name, source=source, selection=said, saved_at=now, saved_by=actor)
        await queries.keep(tx, row)
        digest = b64(sha256(canonical(said)).digest())
        record = make_record(
            "replay.saved", time=now, actor=actor, detail={"name": name, "selection": digest}
        )
        await append(tx, [record])


def check_name(name: str) -> None:
    """Raise `RejectedError` NB-7005 for a name that `save` does not take."""
    if _NAME.fullmatch(name) is None:
        rule = "Use small letters, digits and hyphens, at most 64."
        raise RejectedError("NB-7005", value=name, what="name of a selection", rule=rule)


async def saved(database: Store, name: str) -> Saved:
    """Return what is kept under a name. Raises `NotFoundError` NB-6043."""
    found = await all_saved(database, name)
    if not found:
        raise NotFoundError("NB-6043", name=name)
    return found[0]


async def all_saved(database: Store, name: str | None = None) -> list[Saved]:
    """Return all that is kept, by name, or what one name has."""
    async with database.transaction() as tx:
        rows = await queries.kept(tx, name)
    return [
        Saved(
            name=row.name,
            source=row.source,
            selection=Selection.read(row.selection),
            ages=row.selection.get(_AGES, {}),
            saved_at=row.saved_at,
            saved_by=row.saved_by,
        )
        for row in rows
    ]
