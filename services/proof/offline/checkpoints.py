"""Checkpoints of both logs, who cosigned them and when, and which one grew out of which."""

import re
from typing import Any

from services.proof.offline.arithmetic import (
    COSIGNATURE,
    ED25519_DER,
    ED25519_NOTE,
    consistent,
    demand,
    moment,
    note_key,
    openssl_holds,
    pem,
    told,
    unb64,
    unb64url,
    unjson,
)


class Checkpoints:
    """What is known of the keys of notes, and every note that was verified with them."""

    def __init__(self) -> None:
        self.log_keys: dict[
            tuple[str, bytes], tuple[str, bytes]
        ] = {}  # (name, key id) -> (agency, PEM)
        self.cosigners: dict[tuple[str, bytes], tuple[str, bytes]] = {}  # as log_keys
        self.notes: dict[
            str, tuple[str, str, int, bytes]
        ] = {}  # text of a note -> (agency, origin, size, root), once verified
        self.roots: dict[tuple[str, int], bytes] = {}  # (origin, size) -> root, of all that is here
        self.seen: dict[tuple[str, int], list[tuple[int, str]]] = {}  # -> (seconds, who) of each
        self.grown: dict[tuple[str, int], set[int]] = {}  # -> larger sizes that it is part of

    def add_log_key(self, vkey: str, agency: str, stem: str, name: str) -> tuple[str, bytes]:
        """Keep an Ed25519 log key under its name and key id; return its member and its PEM."""
        key_name, key_id, raw = note_key(vkey, name, ED25519_NOTE)
        demand(key_name.startswith(stem + "/"), name, "a log key has another agency's name")
        self.log_keys[key_name, key_id] = (agency, pem(ED25519_DER + raw))
        return f"keys/{agency}-log-{key_id.hex()}.pem", pem(ED25519_DER + raw)

    def add_cosigner(self, vkey: str, agency: str | None, name: str) -> tuple[str, bytes]:
        """Keep the key of an agency as witness, or of a third one; return its member and PEM."""
        key_name, key_id, raw = note_key(vkey, name, COSIGNATURE)
        # A third witness may call its key what it likes, and is no agency by that.
        found = (agency or f"third witness {key_name}", pem(ED25519_DER + raw))
        self.cosigners.setdefault((key_name, key_id), found)
        stem = "witness" if agency is None else f"{agency}-cosigner"
        return f"keys/{stem}-{key_id.hex()}.pem", found[1]

    def note(self, note: str, name: str, *, in_doubt: bool = False) -> tuple[str, str, int, bytes]:
        """Return (agency, origin, size, root) of a signed note that its own log signed.

        One that is `in_doubt` contradicts another, and nothing in here rests on it.
        """
        if note in self.notes:
            return self.notes[note]
        text, blank, lines = note.rpartition("\n\n")
        head = text.split("\n")
        demand(blank and len(head) == 3 and lines.endswith("\n"), name, "holds no checkpoint")
        origin, size, root = head[0], head[1], unb64(head[2], name)
        demand(re.fullmatch(r"0|[1-9][0-9]{0,18}", size), name, "its size is no number")
        demand(len(root) == 32, name, "its root is no hash")
        place = (origin, int(size))
        agency, others = "", 0
        for line in lines[:-1].split("\n"):
            key_name, _, encoded = line.partition("\u2014 ")[2].partition(" ")
            raw = unb64(encoded, name)
            if (key_name, raw[:4]) in self.cosigners:
                self.check_cosignature(key_name, raw, f"{text}\n", name, place)
                continue
            known = self.log_keys.get((key_name, raw[:4]))
            if known is None or key_name != origin:
                # A cosigner's, or nobody's that we know: C2SP says to pass over them.
                others += 1
                continue
            signed = f"{text}\n".encode()
            holds = openssl_holds(known[1], signed, raw[4:], "-rawin")
            demand(holds, name, f"the signature of {key_name} does not hold")
            agency = known[0]
        demand(agency, name, f"no key of the log {origin} signed it")
        passed = f"; {others} further signatures, not checked" if others else ""
        told(f"{name}: {agency} signed size {size}, root {head[2]}{passed}")
        if in_doubt:
            return agency, origin, int(size), root
        same = self.roots.setdefault(place, root) == root
        demand(same, name, "forks the log: it was signed twice")
        self.notes[note] = (agency, origin, int(size), root)
        return self.notes[note]

    def check_cosignature(
        self, key_name: str, raw: bytes, text: str, name: str, place: tuple[str, int]
    ) -> None:
        """Check another party's word that it saw this checkpoint (C2SP tlog-cosignature)."""
        who, public = self.cosigners[key_name, raw[:4]]
        seconds = int.from_bytes(raw[4:12], "big")
        signed = f"cosignature/v1\ntime {seconds}\n{text}".encode()
        holds = len(raw) == 76 and openssl_holds(public, signed, raw[12:], "-rawin")
        demand(holds, name, f"the cosignature of {key_name} does not hold")
        self.seen.setdefault(place, []).append((seconds, who))
        told(f"{name}: {who} saw it at {moment(seconds)}, and cosigned it")

    def check_consistency(self, data: bytes, name: str) -> tuple[str, int, int]:
        """Check that one checkpoint in here is part of another; return log and both sizes."""
        said: dict[str, Any] = unjson(data, name)
        origin, old, new = said["origin"], said["old"], said["new"]
        both = (origin, old) in self.roots and (origin, new) in self.roots
        demand(both, name, "names a checkpoint that is missing")
        proof = [unb64url(node, name) for node in said["proof"]]
        holds = consistent(old, self.roots[origin, old], new, self.roots[origin, new], proof)
        demand(holds, name, "the older checkpoint is not part of the newer one")
        self.grown.setdefault((origin, old), set()).add(new)
        told(f"{name}: size {old} is the beginning of size {new}")
        return origin, old, new

    def above(self, origin: str, size: int) -> set[int]:
        """Return the sizes of which this one is proven to be the beginning, itself included."""
        found, waiting = {size}, [size]
        while waiting:
            fresh = self.grown.get((origin, waiting.pop()), set()) - found
            found |= fresh
            waiting += fresh
        return found

    def witnessed(self, origin: str, size: int) -> str:
        """Return in words which cosigned checkpoint a checkpoint is tied to.

        Two that are the beginning of one and the same tree are the beginning of each other.
        """
        above = self.above(origin, size)
        tied = [
            (at, seconds, who)
            for (log, at), seen in self.seen.items()
            if log == origin and at >= size and above & self.above(log, at)
            for seconds, who in seen
        ]
        if not tied:
            return "which NOTHING in here ties to a cosigned one"
        at, seconds, who = min(tied)
        what = "which" if at == size else f"the beginning of that of {at}, which"
        return f"{what} {who} cosigned at {moment(seconds)}"
