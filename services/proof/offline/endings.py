"""How signing keys ended, and what a key that ended still counts for."""

import base64
import calendar
import json
import time
from typing import Any

from services.proof.offline.arithmetic import demand, es256_holds, jws, loud, moment, told


class Endings:
    """The ends that party files tell of, and what the other agency cosigned, and when."""

    def __init__(self) -> None:
        self.retired: dict[str, dict[str, Any]] = {}  # key id -> the last sequence by stream
        self.revoked: dict[str, int] = {}  # key id -> seconds after 1970
        self.cosigned: list[tuple[int, int]] = []  # (size, seconds after 1970)
        self.revoked_by: dict[str, set[str]] = {}  # fingerprint of the peer's file -> key ids
        self.learned: dict[str, int] = {}  # key id -> index of our record of the first such file
        self.disputed: list[str] = []

    def read(
        self, said: dict[str, Any], keys: dict[str, tuple[str, str, bytes]], name: str
    ) -> set[str]:
        """Read the ends in a party file, and return the keys that it revokes.

        Old and new key have to have signed a retirement.
        """
        for end in said.get("retired", []):
            statement = {field: end[field] for field in ("at", "kid", "last", "source")}
            statement["successor"] = end["successor"]
            spelt = json.dumps(statement, sort_keys=True, separators=(",", ":")).encode("ascii")
            payload = base64.urlsafe_b64encode(spelt).rstrip(b"=")
            for field, kid in (("by_old", end["kid"]), ("by_new", end["successor"])):
                head, _, last = end[field].encode("ascii").split(b".")
                compact = b".".join((head, payload, last))
                header, _, digest, signature = jws(compact, name, "noticebus-retirement+jws")
                demand(kid in keys, name, "ends a key that is not in here")
                same = header["kid"] == kid and keys[kid][1] == end["source"]
                holds = same and es256_holds(keys[kid][2], digest, signature)
                demand(holds, name, "holds an end that old and new key did not both sign")
            self.retired[end["kid"]] = end["last"]
            told(f"{name}: the key {end['kid']} was retired at {end['at']}")
        for end in said.get("revoked", []):
            demand(end["kid"] in keys, name, "ends a key that is not in here")
            at = calendar.timegm(time.strptime(end["at"][:19], "%Y-%m-%dT%H:%M:%S"))
            self.revoked[end["kid"]] = min(at, self.revoked.get(end["kid"], at))
            told(f"{name}: the key {end['kid']} COUNTS FOR NOTHING since {end['at']}: revoked")
        return {end["kid"] for end in said.get("revoked", [])}

    def learn(self, fingerprint: str, index: int) -> None:
        """Note that the record at `index` is of trust in a file that may have revoked keys."""
        for kid in self.revoked_by.get(fingerprint, ()):
            self.learned[kid] = min(index, self.learned.get(kid, index))

    def check(
        self, kid: str, name: str, place: tuple[str, int, int] | None, index: int | None
    ) -> None:
        """Fail where a signature by this key is no evidence.

        `place` is (stream, generation, sequence), `index` that of our record of exactly these
        bytes. A revoked key counts for records below a checkpoint that was cosigned before. Since
        when others had it is its owner's word alone: a record that the owner itself had cosigned
        before the other agency learned of that is disputed, and it is said aloud.
        """
        if kid in self.revoked:
            since, learned = self.revoked[kid], self.learned.get(kid, 0)
            before = [size for size, seconds in self.cosigned if seconds < since]
            if index is not None and index < max(before, default=0):
                told(f"{name}: its key was revoked later; a checkpoint cosigned before covers it")
                return
            over = [
                each for each in self.cosigned if index is not None and index < each[0] <= learned
            ]
            rule = "is signed by a key that was revoked, and no checkpoint cosigned before covers"
            demand(over, name, f"{rule} it: it proves nothing")
            self.disputed.append(name)
            loud(
                f"{name}: its signer claims that others had its key since {moment(since)}; but at"
                f" {moment(min(over)[1])} it cosigned itself the log whose record {index} names"
                f" exactly these bytes, before that log's record {learned}, by which the other"
                " agency learned of the claim"
            )
        elif kid in self.retired:
            end = self.retired[kid].get(place[0]) if place is not None else None
            reached = (
                end is not None
                and place is not None
                and (place[1:] <= (end["generation"], end["sequence"]))
            )
            demand(reached, name, "is signed by a key that was retired before")
