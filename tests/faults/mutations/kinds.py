"""The kinds of mutation: what is changed at random in one row or two, and what must be named.

A kind is a table, a column, and one of flip, truncate, replace, swap, delete, backdate and fork.
Left out is what the ledger allows or cannot know: an opening or a content that retention erased, a
checkpoint between others that nothing rests on, deadlines, and when a checkpoint was stored or
receipts and heads passed.
"""

import random
from collections.abc import Callable
from dataclasses import dataclass
from uuid import UUID

from schemas.checkpoint import sign_checkpoint
from schemas.errors import EvidenceError
from tests.faults.mutations.ground import Ground

# By table: its key, and what may be changed, each column by its type.
COLUMNS: dict[str, tuple[str, dict[str, str]]] = {
    "record": (
        "record_id",
        {
            "record": "bytea",
            "action": "text",
            "notice_id": "uuid",
            "message_id": "uuid",
            "recorded_at": "time",
        },
    ),
    "opening": ("record_id", {"opened": "jsonb"}),
    "log_entry": ("record_index", {"record_id": "bigint"}),
    "tile": ("n", {"hashes": "bytea"}),
    "checkpoint": ("size", {"note": "text", "root": "bytea"}),
    "log_head": ("origin", {"root": "bytea", "size": "bigint", "origin": "text"}),
    "payload": ("message_id", {"body": "bytea", "salt": "bytea"}),
    "envelope": ("message_id", {"envelope": "bytea"}),
    "sent": (
        "message_id",
        {
            "sequence": "bigint",
            "generation": "bigint",
            "kind": "text",
            "stream": "text",
            "notice_id": "uuid",
            "revision": "bigint",
            "envelope_hash": "bytea",
            "sequenced_at": "time",
            "answer": "forget",
            "answer_message": "uuid",
            "answer_index": "bigint",
            "answered_at": "time",
        },
    ),
    "inbox": (
        "message_id",
        {
            "sequence": "bigint",
            "generation": "bigint",
            "kind": "text",
            "stream": "text",
            "notice_id": "uuid",
            "revision": "bigint",
            "envelope_hash": "bytea",
            "received_at": "time",
            "record_id": "bigint",
        },
    ),
    "party": ("fingerprint", {"party": "bytea"}),
}
# Rows whose absence is a difference.
DELETED = (
    *("record", "log_entry", "tile", "checkpoint", "log_head"),
    *("payload", "envelope", "sent", "inbox"),
)
# Checkpoints that something rests on, or that are the newest.
_RESTED_ON = (
    " AND (size IN (SELECT size FROM cosignature UNION SELECT size FROM answer_batch)"
    " OR size = (SELECT max(size) FROM checkpoint))"
)
# When receipts and heads were numbered, and when heads came in, is on no record and not signed.
_ON_RECORD = {
    "sequenced_at": " AND kind NOT IN ('receipts', 'head')",
    "received_at": " AND kind <> 'head'",
}


@dataclass(frozen=True, slots=True)
class Mutation:
    """One change of one row, or of two that were swapped."""

    kind: str
    table: str
    column: str
    keys: tuple[object, ...]
    # Every name that a difference here may be told by: indexes of records, ids of messages.
    places: frozenset[str]

    def names(self, found: EvidenceError) -> bool:
        """Tell whether a difference names a place of this mutation."""
        where = found.where
        if self.table == "log_head":
            return found.code in ("NB-3038", "NB-3030")
        if self.table == "tile":
            return found.code in ("NB-3035", "NB-3038")
        if self.table == "party":
            return found.code == "NB-3145"
        if self.table == "checkpoint":
            return str(where.get("size")) in self.places or found.code == "NB-3038"
        if "last" in where:
            inside = range(int(str(where["index"])), int(str(where["last"])) + 1)
            return any(int(place) in inside for place in self.places if place.isdigit())
        if "index" in where and self.table in ("record", "log_entry", "opening"):
            return str(where["index"]) in self.places
        return any(place in found.sentence for place in self.places)


def mutate(ground: Ground, chance: random.Random) -> Mutation | None:
    """Change something at random; None if this draw changes nothing."""
    table = chance.choice(tuple(COLUMNS))
    key, columns = COLUMNS[table]
    column = chance.choice(tuple(columns))
    kind = chance.choice(("change", "change", "change", "swap", "delete", "fork"))
    if kind == "fork":
        return _fork(ground, chance)
    if kind == "delete" and table not in DELETED:
        return None
    found = f"SELECT {key} FROM {table} WHERE {column} IS NOT NULL{_ON_RECORD.get(column, '')}"
    if kind == "delete" and table == "checkpoint":
        found += _RESTED_ON
    keys = [row[0] for row in ground.rows(f"{found} ORDER BY {key}")]
    if not keys or (kind == "swap" and len(keys) < 2):
        return None
    chosen = tuple(chance.sample(keys, 2 if kind == "swap" else 1))
    # Read before, since the change may be to what the place is found by.
    places = _places(ground, table, chosen)
    if kind == "delete":
        changed = ground.run(f"DELETE FROM {table} WHERE {key} = %s", chosen)
        return Mutation("delete", table, column, chosen, places) if changed else None
    if kind == "swap":
        if not _swap(ground, table, key, column, chosen):
            return None
        return Mutation("swap", table, column, chosen, places)
    name, expression = _CHANGES[columns[column]](chance)
    changed = ground.run(
        f"UPDATE {table} SET {column} = {expression.format(column=column)}"
        f" WHERE {key} = %s AND {column} IS DISTINCT FROM {expression.format(column=column)}",
        chosen,
    )
    return Mutation(name, table, column, chosen, places) if changed else None


def _swap(ground: Ground, table: str, key: str, column: str, chosen: tuple[object, ...]) -> bool:
    """Let two rows have each other's value; False if they had the same."""
    values = [
        ground.rows(f"SELECT {column} FROM {table} WHERE {key} = %s", [one])[0][0] for one in chosen
    ]
    if values[0] == values[1] or isinstance(values[0], dict):
        return False
    if table == "log_entry":
        ground.run(f"UPDATE {table} SET {column} = -1 WHERE {key} = %s", [chosen[0]])
    if column == "sequence":
        # The sequence of one row at a time is free.
        ground.run(f"UPDATE {table} SET {column} = -{column} - 1 WHERE {key} = %s", [chosen[0]])
    for one, other in ((chosen[1], values[0]), (chosen[0], values[1])):
        ground.run(f"UPDATE {table} SET {column} = %s WHERE {key} = %s", [other, one])
    return True


def _fork(ground: Ground, chance: random.Random) -> Mutation | None:
    """Sign another root with the true log key, as somebody who holds it could."""
    sizes = [row[0] for row in ground.rows("SELECT size FROM checkpoint ORDER BY size")]
    size = chance.choice(sizes)
    root = chance.randbytes(32)
    note = sign_checkpoint(size, root, ground.agency.ring.log_key)
    ground.run("UPDATE checkpoint SET root = %s, note = %s WHERE size = %s", [root, note, size])
    before = max((each for each in sizes if each < size), default=0)
    places = frozenset(map(str, (size, *range(before, size))))
    return Mutation("fork", "record", "note", (size,), places)


def _places(ground: Ground, table: str, keys: tuple[object, ...]) -> frozenset[str]:
    """Return what a difference in these rows may be named by."""
    if table in ("record", "opening"):
        rows = ground.rows(
            "SELECT record_index FROM log_entry WHERE record_id = ANY(%s)", [list(keys)]
        )
        return frozenset(str(row[0]) for row in rows)
    return frozenset(map(str, keys))


def _bytes(chance: random.Random) -> tuple[str, str]:
    """Flip a bit, cut the end, or put other bytes in their place."""
    place = chance.random()
    flip = (
        f"set_bit({{column}}, (({place} * (octet_length({{column}}) * 8 - 1))::int),"
        f" 1 - get_bit({{column}}, (({place} * (octet_length({{column}}) * 8 - 1))::int)))"
    )
    length = chance.randrange(1, 8)
    return chance.choice(
        (
            ("flip", flip),
            ("flip", flip),
            (
                "truncate",
                f"substr({{column}}, 1, greatest(octet_length({{column}}) - {length}, 1))",
            ),
            ("replace", f"decode(md5('{place}') || md5('{length}{place}'), 'hex')"),
        )
    )


def _text(chance: random.Random) -> tuple[str, str]:
    place, letter = chance.random(), chance.choice("ABCxyz0189")
    at = f"(1 + ({place} * (length({{column}}) - 1))::int)"
    return chance.choice(
        (
            ("flip", f"overlay({{column}} PLACING '{letter}' FROM {at} FOR 1)"),
            ("truncate", f"left({{column}}, -{chance.randrange(1, 5)})"),
            ("replace", f"'{letter}' || {{column}}"),
        )
    )


def _uuid(chance: random.Random) -> tuple[str, str]:
    return "replace", f"'{UUID(int=chance.getrandbits(128))}'::uuid"


def _number(chance: random.Random) -> tuple[str, str]:
    return "replace", f"{{column}} + {chance.choice((1, -1, 7, 100_000))}"


def _time(chance: random.Random) -> tuple[str, str]:
    return "backdate", f"{{column}} - interval '{chance.randrange(1, 10**9)} microseconds'"


def _json(chance: random.Random) -> tuple[str, str]:
    return "replace", f"jsonb_set({{column}}, '{{{{actor,value}}}}', '\"J. {chance.random()}\"')"


_CHANGES: dict[str, Callable[[random.Random], tuple[str, str]]] = {
    "bytea": _bytes,
    "text": _text,
    "uuid": _uuid,
    "bigint": _number,
    "time": _time,
    "jsonb": _json,
    "forget": lambda _: ("delete", "NULL"),
}
