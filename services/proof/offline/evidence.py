"""What a bundle says of notices, held to keys, checkpoints and records."""

import base64
import hashlib
import re
import sys
from pathlib import Path
from typing import Any

from services.proof.offline.arithmetic import (
    CannotCheck,
    Failed,
    as_text,
    demand,
    es256_holds,
    included,
    jws,
    leaf_hash,
    p256_pem,
    thumbprint,
    told,
    unb64,
    unb64url,
    unjson,
)
from services.proof.offline.checkpoints import Checkpoints
from services.proof.offline.endings import Endings
from services.proof.offline.reading import members_of

USAGE = "usage: python3 verify.py [BUNDLE.zip] [--fingerprint AGENCY=sha256:...]...\n"
SCHEMA = "noticebus.proof/1"
REVEALED = re.compile(rb'\{"payload":(\{.*\}),"salt":"([A-Za-z0-9_-]{43})"\}', re.ASCII | re.DOTALL)


class Bundle:
    """A bundle's members, and what was found out about its keys and checkpoints."""

    def __init__(self, members: dict[str, bytes]) -> None:
        self.members = members
        self.manifest: dict[str, Any] = {}
        self.sign_keys: dict[str, tuple[str, str, bytes]] = {}  # (kid) -> (agency, source, PEM)
        self.checkpoints = Checkpoints()
        self.endings = Endings()
        self.used: set[str] = set()
        self.at = "evidence"  # the member that is being read

    def member(self, name: Any, of: str = "manifest.jws") -> bytes:
        """Return a member's bytes; `of` is the member that names it."""
        demand(
            isinstance(name, str) and name in self.members, of, f"names {name}, which is missing"
        )
        self.used.add(name)
        self.at = name
        return self.members[name]

    def check(self, fingerprints: dict[str, str]) -> None:
        """Check everything, in the order in which the parts rest on each other."""
        kid = self.check_manifest()
        self.check_parties(fingerprints)
        self.read_witnesses()
        agency = self.sign_key(kid, "manifest.jws")[0]
        demand(agency == self.manifest["agency"], "manifest.jws", "is signed by another agency")
        told(f"manifest.jws: signed by {agency}, {len(self.manifest['members'])} members")
        self.check_checkpoints()
        self.check_conflicts()
        self.endings.check(kid, "manifest.jws", None, None)
        self.check_key_records()
        for notice_id in self.manifest["notices"]:
            Notice(self, notice_id).check()
        evidence = {name for name in self.members if name.startswith(("notices/", "keys/records/"))}
        left = sorted(evidence - self.used)
        demand(not left, left[0] if left else "", "belongs to nothing that was checked")

    def check_manifest(self) -> Any:
        """Check the manifest's signature, then the members by it; return the id of its key."""
        name = "manifest.jws"
        demand(name in self.members, name, "is missing")
        header, payload, digest, signature = jws(self.members[name], name, "noticebus-proof+jws")
        said = unjson(payload, name)
        demand(isinstance(said, dict), name, "is not an object")
        schema = str(said.get("schema"))
        if schema != SCHEMA and schema.startswith("noticebus.proof/"):
            raise Failed(f"{name}: was made by a later version ({schema}); this one reads {SCHEMA}")
        demand(schema == SCHEMA, name, "is no manifest of a proof bundle")
        self.manifest = said
        key = self.loose_key(header["kid"])
        demand(key is None or es256_holds(key, digest, signature), name, "its signature is wrong")
        for field, kind in (("members", dict), ("notices", list), ("parties", list)):
            demand(isinstance(said.get(field), kind), name, f"has no {field}")
        for member, expected in sorted(said["members"].items()):
            demand(member in self.members, member, "is missing")
            found = hashlib.sha256(self.members[member]).hexdigest()
            demand(found == expected, member, "was changed: its SHA-256 is another")
        extra = sorted(set(self.members) - set(said["members"]) - {name})
        demand(not extra, extra[0] if extra else "", "is not in the manifest")
        # Had a party file been changed, it would have been named by now.
        demand(key is not None, name, "is signed by a key that is in no party file")
        told(f"{len(said['members'])} members have the SHA-256 that the manifest names")
        return header["kid"]

    def loose_key(self, kid: Any) -> bytes | None:
        """Return the PEM of a key by its thumbprint, from party files that nothing vouches for."""
        for name, data in self.members.items():
            if name.startswith("keys/") and name.endswith(".party.json"):
                try:
                    for key in unjson(data, name)["jwks"]["keys"]:
                        if key["use"] == "sig" and thumbprint(key) == kid:
                            return p256_pem(key, name)
                except (Failed, KeyError, TypeError):
                    continue
        return None

    def check_parties(self, fingerprints: dict[str, str]) -> None:
        """Read the party files: whose keys these are."""
        for party in self.manifest["parties"]:
            name = party["member"]
            data = self.member(name)
            found = "sha256:" + hashlib.sha256(data).hexdigest()
            demand(found == party["fingerprint"], name, "has another fingerprint")
            said = unjson(data, name)
            agency = said["agency"]
            demand(agency == party["agency"], name, "belongs to another agency")
            stem = f"{said['domain']}/noticebus/{agency}"
            for key in said["jwks"]["keys"]:
                if key["use"] == "sig":
                    self.add_sign_key(key, agency, f"//{stem}", name)
            revoked = self.endings.read(said, self.sign_keys, name)
            if agency == self.manifest["peer"]:
                self.endings.revoked_by[found] = revoked
            for vkey in said["log_keys"]:
                self.written(*self.checkpoints.add_log_key(vkey, agency, stem, name), name)
            for vkey in said.get("cosigner_keys", []):
                self.written(*self.checkpoints.add_cosigner(vkey, agency, name), name)
            wanted = fingerprints.get(agency)
            if wanted is not None and party["status"] == "current":
                demand(found == wanted, name, f"is not the file with fingerprint {wanted}")
            compared = "compared" if wanted else f"COMPARE it with what {agency} says itself"
            told(f"{name}: {party['status']} keys of {agency}, {found} ({compared})")

    def read_witnesses(self) -> None:
        """Read the keys of third witnesses: nobody but they can say that these are theirs."""
        for vkey in self.manifest.get("witnesses", []):
            self.written(*self.checkpoints.add_cosigner(vkey, None, "manifest.jws"), "manifest.jws")
            told(f"third witness {vkey} (COMPARE it with what it says itself)")

    def written(self, member: str, key: bytes, of: str) -> None:
        """Check that a key stands in the member of its name as well."""
        demand(self.member(member, of) == key, member, "is another key")

    def add_sign_key(self, key: dict[str, str], agency: str, source: str, name: str) -> None:
        """Keep a P-256 key under its RFC 7638 thumbprint."""
        kid = thumbprint(key)
        demand(kid == key["kid"], name, "a key has another thumbprint")
        self.sign_keys[kid] = (agency, source, p256_pem(key, name))
        self.written(f"keys/{agency}-sign-{kid[:16]}.pem", self.sign_keys[kid][2], name)

    def sign_key(self, kid: Any, name: str) -> tuple[str, str, bytes]:
        """Return agency, source and PEM of the key that a JWS names."""
        demand(kid in self.sign_keys, name, "is signed by a key that is in no party file")
        return self.sign_keys[kid]

    def check_checkpoints(self) -> None:
        """Check every checkpoint, that none is forked, and that the older is part of the newer."""
        known = self.checkpoints
        for name in sorted(self.members):
            if name.startswith("checkpoints/"):
                known.note(as_text(self.members[name], name), name)
        origin, size = self.manifest["origin"], self.manifest["size"]
        demand((origin, size) in known.roots, "manifest.jws", "its checkpoint is missing")
        alone = {at for log, at in known.roots if log == origin and at != size}
        for name in sorted(self.members):
            if name.startswith("consistency/"):
                log, old, new = known.check_consistency(self.member(name), name)
                alone -= {old} if (log, new) == (origin, size) else set()
        for at in sorted(alone):
            missing = f"consistency/{self.manifest['agency']}-{at:012d}-{size:012d}.json"
            demand(not alone, "manifest.jws", f"names {missing}, which is missing")
        for (log, at), seen in known.seen.items():
            by_peer = [seconds for seconds, who in seen if who == self.manifest["peer"]]
            if log == origin and by_peer:
                self.endings.cosigned.append((at, min(by_peer)))

    def check_conflicts(self) -> None:
        """Read what the other agency signed and cannot both be true."""
        for said in self.manifest.get("conflicts", []):
            for name in [said[part] for part in ("known", "told") if part in said]:
                note = as_text(self.member(name), name)
                signer = self.checkpoints.note(note, name, in_doubt=True)[0]
                demand(signer == self.manifest["peer"], name, "the other agency did not sign it")
            told(
                f"IN DOUBT: {said['origin']} contradicts itself at {said['size']} ({said['code']})"
            )

    def proven(
        self, record_name: str, proof_name: str, of: str, agency: str
    ) -> tuple[int, tuple[str, int], dict[str, Any]]:
        """Check a record's tlog-proof under a checkpoint of `agency`.

        Returns its index, log and size of the checkpoint, and what the record says.
        """
        record, text = (
            self.member(record_name, of),
            as_text(self.member(proof_name, of), proof_name),
        )
        head, blank, note = text.partition("\n\n")
        lines = head.split("\n")
        demand(blank and lines[0] == "c2sp.org/tlog-proof@v1", proof_name, "is no tlog-proof")
        lines = lines[2:] if len(lines) > 1 and lines[1].startswith("extra ") else lines[1:]
        number = lines[0].partition("index ")[2] if lines else ""
        demand(re.fullmatch(r"0|[1-9][0-9]{0,18}", number), proof_name, "has no index")
        signer, origin, size, root = self.checkpoints.note(note, proof_name)
        demand(signer == agency, proof_name, f"is of the log of {signer}, not of {agency}")
        proof = [unb64(line, proof_name) for line in lines[1:]]
        found = included(leaf_hash(record), int(number), size, proof)
        demand(found == root, record_name, f"is not in the tree that {proof_name} names")
        said = unjson(record, record_name)
        demand(isinstance(said, dict), record_name, "is not an object")
        return int(number), (origin, size), said

    def check_key_records(self) -> None:
        """Check the records that name party files: these keys were in use, and since when."""
        known = {party["fingerprint"] for party in self.manifest["parties"]}
        for name in sorted(self.members):
            if name.startswith("keys/records/") and name.endswith(".json"):
                proof = name[: -len("json")] + "tlog"
                index, _, said = self.proven(name, proof, name, self.manifest["agency"])
                detail = said.get("detail", {})
                demand(detail.get("fingerprint") in known, name, "names a party file not in here")
                if said["action"] == "party.trusted":
                    self.endings.learn(detail["fingerprint"], index)
                told(
                    f"{name}: record {index}, {said['action']} of {detail['party']} {said['time']}"
                )


class Notice:
    """One notice: its messages, records and receipts, and that they belong together."""

    def __init__(self, bundle: Bundle, notice_id: str) -> None:
        self.bundle = bundle
        self.notice_id = notice_id
        self.name = f"notices/{notice_id}/evidence.json"
        self.said = unjson(bundle.member(self.name), self.name)
        self.agency, self.peer = bundle.manifest["agency"], bundle.manifest["peer"]
        self.records: dict[tuple[str, Any], dict[str, Any]] = {}  # (action, message id) -> record
        self.by_index: dict[str, dict[str, Any]] = {}
        self.indexes: dict[tuple[str, Any], int] = {}  # (message id, its envelope's hash) -> index
        self.answered: dict[Any, int] = {}  # message id of a refusal -> index of our record of it
        self.commitments: dict[str, Any] = {}

    def check(self) -> None:
        """Check the records first, then each message against them."""
        demand(self.said.get("notice_id") == self.notice_id, self.name, "is of another notice")
        for each in self.said["records"]:
            self.check_record(each)
        for message in self.said["messages"]:
            self.check_message(message)
        self.check_revealed()
        waiting = f", {self.said['not_sealed']} not sealed yet" if self.said["not_sealed"] else ""
        counts = f"{len(self.said['messages'])} messages, {len(self.said['records'])} records"
        told(f"notice {self.notice_id}: {counts}{waiting}")

    def check_record(self, each: dict[str, Any]) -> None:
        """Check a record of the agency that made the bundle."""
        name = each["record"]
        index, (log, _), said = self.bundle.proven(name, each["proof"], self.name, self.agency)
        demand(log == self.bundle.manifest["origin"], name, "is of another log")
        demand(index == each["index"], name, "has another index")
        demand(said.get("action") == each["action"], name, "tells of another act")
        demand(said.get("notice_id") == self.notice_id, name, "is of another notice")
        self.records[said["action"], said.get("message_id")] = said
        self.by_index[str(index)] = said
        if "envelope" in said:
            place = (str(said.get("message_id")), said["envelope"])
            self.indexes[place] = min(index, self.indexes.get(place, index))
        answer = said.get("detail", {}).get("answer")
        self.answered[answer] = min(index, self.answered.get(answer, index))
        told(f"{name}: record {index} of {self.agency}, {said['action']} {said['time']}")

    def check_message(self, message: dict[str, Any]) -> None:
        """Check a message: its signature, our record of it, and what answered it."""
        bundle, message_id, sent = (
            self.bundle,
            message["message_id"],
            message["direction"] == "sent",
        )
        author, reader = (self.agency, self.peer) if sent else (self.peer, self.agency)
        where = message.get("envelope", self.name)
        if "envelope" in message:
            self.check_envelope(where, message, author, reader)
        if "erased" in message:
            self.check_erased(message["erased"], message, author)
        action = "message.sent" if sent else "message.received"
        record = self.records.get((action, message_id)) or self.records.get(
            ("message.refused", message_id)
        )
        if record is not None and "envelope" in record:
            demand(record["envelope"] == message["hash"], where, "our record is of other bytes")
            bound = self.commitments.get(message_id)
            if bound is not None and "commitment" in record:
                demand(record["commitment"] == bound, where, "our record has another commitment")
        if "receipt" in message:
            names = message["receipt"]
            name = names["record"]
            _, (log, size), said = bundle.proven(name, names["proof"], self.name, reader)
            facts = (said.get("action"), said.get("message_id"), said.get("envelope"))
            expected = ("message.received", message_id, message["hash"])
            demand(facts == expected, name, f"is no receipt of message {message_id}")
            result = said.get("result")
            told(f"{name}: {reader} recorded at {said['time']} that it has it ({result})")
            if "tied" in names:
                joins = unjson(bundle.member(names["tied"], self.name), names["tied"])
                same = (joins["origin"], joins["old"]) == (log, size)
                demand(same, names["tied"], f"ties another checkpoint than that of {name}")
            seen = bundle.checkpoints.witnessed(log, size)
            told(f"{name}: under the checkpoint of {size} of its log, {seen}")
        if "refusal" in message:
            self.check_refusal(message["refusal"], message, reader)

    def check_envelope(self, name: str, message: dict[str, Any], author: str, reader: str) -> None:
        """Check signature and attributes of an envelope."""
        data = self.bundle.member(name, self.name)
        header, payload, digest, signature = jws(data, name, "cloudevents+jws")
        spelt = base64.urlsafe_b64encode(digest).rstrip(b"=").decode("ascii")
        agency, source, key = self.bundle.sign_key(header["kid"], name)
        said = unjson(payload, name)
        demand(spelt == message["hash"], name, "has other bytes than the evidence names")
        demand(es256_holds(key, digest, signature), name, "its signature does not hold")
        demand(agency == author and said["source"] == source, name, f"is not signed by {author}")
        demand(said["id"] == message["message_id"], name, "is another message")
        demand(said["subject"] == self.notice_id, name, "is of another notice")
        demand(said["recipient"] == reader, name, "is meant for somebody else")
        demand(int(said["sequence"]) == message["sequence"], name, "has another sequence")
        self.check_key(header["kid"], name, message)
        self.commitments[message["message_id"]] = said.get("commitment")
        told(f"{name}: {said['type']} of {said['time']}, signed by {author}")

    def check_key(self, kid: Any, name: str, message: dict[str, Any]) -> None:
        """Fail where the message's key had ended, unless our record shows that it was before."""
        place = (message["stream"], message["generation"], message["sequence"])
        index = self.indexes.get((message["message_id"], message["hash"]))
        self.bundle.endings.check(kid, name, place, index)

    def check_erased(self, name: str, message: dict[str, Any], author: str) -> None:
        """Check what is left of an erased envelope: who signed the bytes with that hash."""
        header, _, _, signature = jws(self.bundle.member(name, self.name), name, "cloudevents+jws")
        agency, _, key = self.bundle.sign_key(header["kid"], name)
        demand(agency == author, name, f"is not signed by {author}")
        # The content is gone, its hash is in our record: the signature is over exactly that.
        digest = unb64url(message["hash"], name)
        demand(es256_holds(key, digest, signature), name, "its signature does not hold")
        self.check_key(header["kid"], name, message)
        told(f"{name}: erased; {author} signed the bytes with the hash that the records name")

    def check_refusal(self, name: str, message: dict[str, Any], reader: str) -> None:
        """Check the signed refusal of a message."""
        header, payload, digest, signature = jws(
            self.bundle.member(name, self.name), name, "cloudevents+jws"
        )
        agency, _, key = self.bundle.sign_key(header["kid"], name)
        demand(es256_holds(key, digest, signature), name, "its signature does not hold")
        demand(agency == reader, name, f"is not signed by {reader}")
        told_by = unjson(payload, name)
        lane = f"{agency}.{told_by['recipient']}.{told_by['lane']}.{told_by['partition']}"
        place = (f"{{{lane}}}:out", told_by["generation"], int(told_by["sequence"]))
        self.bundle.endings.check(header["kid"], name, place, self.answered.get(told_by["id"]))
        said = told_by["data"]
        facts = (said.get("message_id"), said.get("envelope"))
        expected = (message["message_id"], message["hash"])
        demand(facts == expected, name, f"is no refusal of message {message['message_id']}")
        told(f"{name}: {reader} refused it at {said['at']}, {said['code']}")

    def check_revealed(self) -> None:
        """Check contents and names against what envelopes and records committed to."""
        stem = f"notices/{self.notice_id}/revealed/"
        for name in sorted(self.bundle.members):
            if not name.startswith(stem):
                continue
            demand(self.bundle.manifest["revealed"], name, "is personal, in a bundle without it")
            data = self.bundle.member(name)
            if name == stem + "openings.json":
                self.check_openings(unjson(data, name), name)
                continue
            found = REVEALED.fullmatch(data)
            if found is None:
                raise Failed(f"{name}: has another form")
            salt = unb64url(found[2].decode("ascii"), name)
            digest = hashlib.sha256(salt + found[1]).digest()
            bound = base64.urlsafe_b64encode(digest).rstrip(b"=").decode("ascii")
            message_id = name[len(stem) : -len(".json")]
            demand(self.commitments.get(message_id) == bound, name, "is not what was committed to")
            told(f"{name}: this is what message {message_id} says")

    def check_openings(self, openings: dict[str, Any], name: str) -> None:
        """Check actor, office and text of records."""
        for index, opened in openings.items():
            demand(index in self.by_index, name, f"names record {index}, which is not in here")
            for field, opening in opened.items():
                salt, value = unb64url(opening["salt"], name), opening["value"]
                spelt = salt + field.encode("ascii") + b"\x00" + value.encode("utf-8")
                digest = hashlib.sha256(spelt).digest()
                bound = base64.urlsafe_b64encode(digest).rstrip(b"=").decode("ascii")
                holds = self.by_index[index].get(field) == bound
                demand(holds, name, f"{field} of record {index} is not what was committed to")
            told(f"{name}: names of record {index}")


def main(arguments: list[str]) -> int:
    """Check what is named, or the folder of this file; return the exit code."""
    fingerprints: dict[str, str] = {}
    places: list[str] = []
    waiting = list(arguments)
    while waiting:
        given = waiting.pop(0)
        if given == "--fingerprint":
            agency, _, fingerprint = (waiting.pop(0) if waiting else "").partition("=")
            fingerprints[agency] = fingerprint
        else:
            places.append(given)
    if len(places) > 1 or any(place.startswith("-") for place in places):
        sys.stderr.write(USAGE)
        return 2
    place = Path(places[0]) if places else Path(__file__).resolve().parent
    bundle = Bundle({})
    try:
        bundle.members = members_of(place)
        bundle.check(fingerprints)
    except CannotCheck as missing:
        sys.stdout.write(f"COULD NOT CHECK  {missing}\n")
        return 1
    except Failed as failed:
        sys.stdout.write(f"FAILED  {failed}\n")
        return 6
    except (KeyError, TypeError, ValueError, AttributeError, IndexError) as error:
        # What is missing or of another type in JSON that somebody wrote by hand.
        sys.stdout.write(f"FAILED  {bundle.at}: has another form ({type(error).__name__})\n")
        return 6
    counts = (
        f"{len(bundle.manifest['notices'])} notices, {len(bundle.checkpoints.notes)} checkpoints"
    )
    disputed = len(bundle.endings.disputed)
    but = f"; DISPUTED by their signer: {disputed} signatures, see above" if disputed else ""
    sys.stdout.write(f"ALL HOLDS: {counts}, {len(bundle.members)} files{but}\n")
    return 0


if __name__ == "__main__":
    sys.exit(main(sys.argv[1:]))
