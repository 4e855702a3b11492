"""What is handed out, and what becomes of it: bundles, exported folders and receipts.

A bundle is changed as a thief could (any member, or the zip's own bytes) and as its cheating maker
could, who signs the manifest again: then what rests on others must give it away. Left out there is
what a maker may say as it likes: the report, the guide, the program, code lists, keys in
further forms, counts of what is not in the bundle, and signatures under a checkpoint of others.
"""

import io
import random
import zipfile
from collections.abc import Mapping
from contextlib import redirect_stdout
from dataclasses import dataclass
from pathlib import Path
from typing import Any

from schemas.canonical import canonical, parse
from schemas.catalog import parse_body
from schemas.checkpoint import Checkpoint, parse_checkpoint, sign_checkpoint
from schemas.envelope import Kind, read, verify
from schemas.errors import NoticeBusError
from schemas.reply import Receipts
from services.exchange.agency import Agency
from services.exchange.receipts import verify_batch
from services.ledger.export import CHECKPOINT, export
from services.ledger.exported import verify_exported
from services.proof.archive import packed, unpacked
from services.proof.members import MANIFEST
from services.proof.offline import evidence
from services.proof.offline.arithmetic import Failed
from tests.agencies import Pair
from tests.bundles import Members, members_of, ours, signed_again
from tests.steps import rows

# Bundles that the second program reads too, with openssl: one in so many, because it is slow.
BY_OPENSSL = 25
ENTRY = "tile/entries/"


@dataclass(frozen=True, slots=True)
class Judged:
    """One mutation, what was said of it, None for nothing, and whether its place was named."""

    title: str
    what: str
    found: str | None
    placed: bool


@dataclass(slots=True)
class HandedOut:
    """What both agencies handed out of one exchange, and a folder to spoil copies in."""

    pair: Pair
    place: Path
    bundles: list[tuple[Agency, Members]]
    folders: list[tuple[Agency, Path]]
    receipts: list[tuple[Agency, dict[str, Any]]]
    tried: int = 0

    def mutate(self, chance: random.Random) -> Judged | None:
        """Change something at random in a copy and judge it; None if nothing was changed."""
        kinds = (self._stolen, self._archive, self._cheated, self._folder, self._receipt)
        return chance.choice(kinds)(chance)

    def whole(self) -> None:
        """Check that nothing is found where nothing was changed."""
        for _, members in self.bundles:
            assert ours(members) is None
            assert by_openssl(members) is None
        for agency, folder in self.folders:
            verify_exported(folder, log_keys=[agency.ring.log_key.verifier])
        for agency, body in self.receipts:
            assert refused_receipts(agency, body) is None

    def _stolen(self, chance: random.Random) -> Judged | None:
        _, members = chance.choice(self.bundles)
        done = change_one(members, chance, sorted(members))
        if done is None:
            return None
        kind, places, changed = done
        return self._judge(f"{kind} bundle", places, changed)

    def _cheated(self, chance: random.Random) -> Judged | None:
        maker, members = chance.choice(self.bundles)
        if chance.random() < 0.2:
            done = fork(self.pair, members, chance)
        else:
            done = change_one(members, chance, sorted(filter(rests_on_others, members)))
        if done is None:
            return None
        kind, places, changed = done
        if kind == "delete" and any("/revealed/" in place for place in places):
            # What it does not reveal, a maker need not.
            return None
        if (
            kind == "swap"
            and len({members[f"{place[:-4]}json"] for place in places if place.endswith(".tlog")})
            == 1
        ):
            # Two proofs of one record under two checkpoints: each shows what the other does.
            return None
        if any(place.endswith(".party.json") for place in places):
            # It may be the one with the key that signed the manifest.
            places |= {MANIFEST}
        # A record and its proof do not fit each other: either may be told.
        stems = {place.rpartition(".")[0] for place in places if place.endswith((".json", ".tlog"))}
        places |= {f"{stem}{end}" for stem in stems for end in (".json", ".tlog")}
        return self._judge(f"{kind} signed bundle", places, signed_again(maker, changed))

    def _judge(self, title: str, places: frozenset[str], changed: Members) -> Judged:
        self.tried += 1
        found = ours(changed)
        if found is not None and self.tried % BY_OPENSSL == 0:
            said = by_openssl(changed)
            if said is None or not any(place in said for place in places):
                return Judged(f"{title} by openssl", str(sorted(places)), said, placed=False)
        placed = found is not None and any(place in found for place in places)
        return Judged(title, str(sorted(places)), found, placed=placed)

    def _archive(self, chance: random.Random) -> Judged:
        """Change the zip itself: a bit in the bytes of a member, or its end."""
        _, members = chance.choice(self.bundles)
        data = bytearray(packed(members))
        path = self.place / "spoilt.zip"
        if chance.random() < 0.2:
            path.write_bytes(data[: -chance.randrange(1, len(data) // 2)])
            kind, place = "truncate", path.name
        else:
            with zipfile.ZipFile(io.BytesIO(data)) as archive:
                about = chance.choice([each for each in archive.infolist() if each.file_size])
            first = about.header_offset + 30 + len(about.filename)
            data[first + chance.randrange(about.file_size)] ^= 1 << chance.randrange(8)
            path.write_bytes(data)
            kind, place = "flip", about.filename
        try:
            found = ours(unpacked(path))
        except NoticeBusError as error:
            found = error.sentence
        return Judged(f"{kind} zip", place, found, placed=found is not None and place in found)

    def _folder(self, chance: random.Random) -> Judged | None:
        agency, folder = chance.choice(self.folders)
        there = {
            path.relative_to(folder).as_posix(): path.read_bytes()
            for path in sorted(folder.rglob("*"))
            if path.is_file()
        }
        point = parse_checkpoint(there[CHECKPOINT].decode()).checkpoint
        if chance.random() < 0.1:
            root = chance.randbytes(32)
            note = sign_checkpoint(point.size, root, agency.ring.log_key)
            kind, places = "fork", frozenset({CHECKPOINT})
            changed: Members = {**there, CHECKPOINT: note.encode()}
        else:
            done = change_one(there, chance, sorted(there), added=False)
            if done is None:
                return None
            kind, places, changed = done
        if not any(name.startswith(ENTRY) for name in there):
            # Nothing stands below them that could tell which of the two it is.
            places |= {CHECKPOINT} if any(".p/" in place for place in places) else set()
        differing = [name for name in there if changed.get(name) != there[name]]
        try:
            for name in differing:
                write(folder / name, changed.get(name))
            found = refused_folder(agency, folder)
        finally:
            for name in differing:
                write(folder / name, there[name])
        placed = found is not None and any(found.startswith(f"{each} ") for each in places)
        return Judged(f"{kind} folder", str(sorted(places)), found, placed=placed)

    def _receipt(self, chance: random.Random) -> Judged | None:
        """Change what an answer to a batch says, as whoever signs for the peer could."""
        agency, body = chance.choice(self.receipts)
        changed = parse(canonical(body))
        kind = chance.choice(("flip", "replace", "delete", "swap", "truncate", "fork", "backdate"))
        entries = changed["entries"]
        at = chance.randrange(len(entries))
        record = entries[at].get("record")
        places = {f"record {body['index']}", body["checkpoint"].partition("\n")[0], "checkpoint"}
        match kind:
            case "delete":
                del entries[at]
            case "swap":
                to = chance.randrange(len(entries))
                entries[at], entries[to] = entries[to], entries[at]
            case "fork":
                size = body["index"] + len(entries)
                peer = self.pair.hhs if agency is self.pair.ice else self.pair.ice
                root = chance.randbytes(32)
                changed["checkpoint"] = sign_checkpoint(size, root, peer.ring.log_key)
            case "flip":
                _, note = change_bytes(body["checkpoint"].encode(), chance)
                changed["checkpoint"] = note.decode("utf-8", "replace")
            case "replace":
                changed["index"] += chance.choice((1, -1, 7))
            case "truncate":
                if not changed["frontier"]:
                    return None
                changed["frontier"].pop()
            case "backdate":
                if record is None:
                    return None
                record["time"] = f"2001{record['time'][4:]}"
        if canonical(changed) == canonical(body):
            return None
        found = refused_receipts(agency, changed)
        placed = found is not None and any(place in found for place in (*places, "NB-2100"))
        return Judged(f"{kind} receipts", str(body["index"]), found, placed=placed)


async def handed_out(pair: Pair, place: Path) -> HandedOut:
    """Hand out what there is: of each agency two bundles, one revealing, and two folders."""
    made = HandedOut(pair, place / "spoilt", [], [], [])
    made.place.mkdir()
    query = "SELECT notice_id FROM sent WHERE answer = 'receipt' ORDER BY message_id LIMIT 1"
    [(notice_id,)] = await rows(pair.ice, query)
    for agency in (pair.ice, pair.hhs):
        for more in ({}, {"reason": "asked for by an inspector"}):
            made.bundles.append((agency, await members_of(agency, place, notice_id, **more)))
        for name, entries in (("log", True), ("hashes", False)):
            folder = place / f"{agency.name}-{name}"
            await export(agency.store, folder, entries=entries, actor="an operator")
            made.folders.append((agency, folder))
        query = (
            "SELECT e.envelope FROM inbox AS i JOIN envelope AS e USING (message_id)"
            " WHERE i.kind = 'receipts' ORDER BY message_id"
        )
        for (envelope,) in await rows(agency, query):
            opened = verify(read(bytes(envelope)), agency.directory.verify_keys)
            made.receipts.append((agency, parse(opened.plain())))
    return made


def change_bytes(data: bytes, chance: random.Random) -> tuple[str, bytes]:
    """Flip a bit, cut the end, or put other bytes in their place."""
    kind = chance.choice(("flip", "flip", "truncate", "replace"))
    if kind == "truncate":
        return kind, data[: -chance.randrange(1, min(8, len(data)) + 1)]
    changed = bytearray(data)
    at = chance.randrange(len(data))
    changed[at] ^= 1 << chance.randrange(8) if kind == "flip" else 0xFF
    return kind, bytes(changed)


def change_one(
    there: Mapping[str, bytes], chance: random.Random, names: list[str], *, added: bool = True
) -> tuple[str, frozenset[str], Members] | None:
    """Return a copy with a file changed, gone, added, or two swapped; and what must be named."""
    name = chance.choice(names)
    kind = chance.choice(("change", "change", "change", "delete", "swap", *(["add"] * added)))
    changed = dict(there)
    if kind == "delete":
        del changed[name]
    elif kind == "add":
        name = f"notices/{chance.randrange(10**6)}.json"
        changed[name] = b"{}"
    elif kind == "swap":
        alike = [other for other in names if other.rpartition(".")[2] == name.rpartition(".")[2]]
        other = chance.choice(alike)
        if there[name] == there[other]:
            return None
        changed[name], changed[other] = there[other], there[name]
        return kind, frozenset({name, other}), changed
    else:
        kind, changed[name] = change_bytes(there[name], chance)
        if changed[name] == there[name]:
            return None
    return kind, frozenset({name}), changed


def rests_on_others(name: str) -> bool:
    """Tell whether a member is held to something that its maker cannot make."""
    return (name.endswith((".jws", ".tlog", ".party.json", ".pem")) and name != MANIFEST) or (
        name.startswith(("notices/", "keys/records/", "consistency/"))
        and not name.endswith("evidence.json")
    )


def fork(
    pair: Pair, members: Members, chance: random.Random
) -> tuple[str, frozenset[str], Members] | None:
    """Sign another root of a checkpoint in a bundle with the true log key."""
    name = chance.choice(sorted(each for each in members if each.startswith("checkpoints/")))
    point: Checkpoint = parse_checkpoint(members[name].decode()).checkpoint
    agency = pair.ice if name.startswith("checkpoints/ice") else pair.hhs
    note = sign_checkpoint(point.size, chance.randbytes(32), agency.ring.log_key)
    # Whichever is read second shows that there are two: a proof under it, or what builds on it. A
    # fork where nothing else in the bundle is of this size shows to whoever cosigned it alone.
    same = f"{point.origin}\n{point.size}\n".encode()
    under = {each for each, data in members.items() if same in data}
    proofs, size = f"consistency/{agency.name}-", f"{point.size:012d}"
    builds = {each for each in members if each.startswith(proofs) and size in each}
    if under | builds <= {name}:
        return None
    return "fork", frozenset({name, *under, *builds}), {**members, name: note.encode()}


def by_openssl(members: Members) -> str | None:
    """Return why the program in the bundle refuses it, None if all of it holds."""
    bundle = evidence.Bundle(dict(members))
    try:
        with redirect_stdout(io.StringIO()):
            bundle.check({})
    except Failed as failed:
        return str(failed)
    except (KeyError, TypeError, ValueError, AttributeError, IndexError) as error:
        return f"{bundle.at}: has another form ({type(error).__name__})"
    return None


def refused_folder(agency: Agency, folder: Path) -> str | None:
    """Return why a folder is refused, beginning with the file."""
    try:
        verify_exported(folder, log_keys=[agency.ring.log_key.verifier])
    except NoticeBusError as error:
        return f"{error.where.get('file', CHECKPOINT)} {error.sentence}"
    return None


def refused_receipts(agency: Agency, body: dict[str, Any]) -> str | None:
    """Return why the sender does not believe receipts, None if it does."""
    try:
        receipts = parse_body(Kind.RECEIPTS, 1, canonical(body))
        assert isinstance(receipts, Receipts)
        verify_batch(receipts, agency)
    except NoticeBusError as error:
        return f"{error.code} {error.sentence}"
    return None


def write(path: Path, content: bytes | None) -> None:
    """Write a file, or remove it."""
    if content is None:
        path.unlink()
    else:
        path.write_bytes(content)
