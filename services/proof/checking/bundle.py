"""The frame of a bundle: manifest, keys, checkpoints, and the records that name the keys."""

from collections.abc import Mapping
from contextlib import suppress
from dataclasses import dataclass, field
from datetime import datetime
from hashlib import sha256
from typing import Any

from cryptography.hazmat.primitives.serialization import Encoding, PublicFormat

from schemas.canonical import format_time, parse
from schemas.checkpoint import COSIGNATURE, Verifier, verify_checkpoint
from schemas.ending import Ending, disputed, not_counted
from schemas.envelope import Envelope, VerifyKey, read, verify
from schemas.errors import EvidenceError, RejectedError
from schemas.jose import Jws, read_jws, verify_jws
from schemas.party import Party, fingerprint
from schemas.proof import leaf_hash, parse_tlog_proof, verify_inclusion
from services.proof.checking.checkpoints import Checkpoints, note_key_pem
from services.proof.checking.demands import demand, of
from services.proof.members import MANIFEST, SCHEMA, TYP

_FAMILY = SCHEMA.partition("/")[0] + "/"


def _in_doubt(said: Mapping[str, Any]) -> str:
    return f"IN DOUBT: {said['origin']} contradicts itself at {said['size']} ({said['code']})"


@dataclass(frozen=True, slots=True)
class Held:
    """One check that a member held."""

    member: str
    told: str


@dataclass(frozen=True, slots=True, kw_only=True)
class Checked:
    """What a bundle is, once all of it held; `disputed` is what a signer would take back."""

    agency: str
    made_at: str
    origin: str
    size: int
    revealed: bool
    notices: int
    members: int
    fingerprints: Mapping[str, str]
    witnesses: tuple[str, ...]
    conflicts: tuple[str, ...]
    held: tuple[Held, ...]
    disputed: tuple[Held, ...]


@dataclass(slots=True)
class Bundle:
    """A bundle on its way through the checks.

    `learned` is, by key, the index of the maker's record of trust in the first file that revokes it
    (`revoked_by`, by fingerprint): from there on it knew what the other agency says of that key.
    """

    members: Mapping[str, bytes]
    manifest: dict[str, Any] = field(default_factory=dict)
    sign_keys: dict[str, tuple[str, VerifyKey]] = field(default_factory=dict)
    endings: dict[str, Ending] = field(default_factory=dict)
    peer_cosigners: set[str] = field(default_factory=set)
    cosigned: list[tuple[int, datetime]] = field(default_factory=list)
    revoked_by: dict[str, set[str]] = field(default_factory=dict)
    learned: dict[str, int] = field(default_factory=dict)
    current: dict[str, str] = field(default_factory=dict)
    checkpoints: Checkpoints = field(default_factory=Checkpoints)
    used: set[str] = field(default_factory=set)
    held: list[Held] = field(default_factory=list)
    disputed: list[Held] = field(default_factory=list)

    @property
    def notices(self) -> list[str]:
        """The notices that it is about."""
        return [str(notice_id) for notice_id in self.manifest["notices"]]

    def check_frame(self, expected: Mapping[str, str]) -> None:
        """Check all that the notices rest on."""
        with of(MANIFEST):
            signed = self._read_manifest()
            key = self._loose_key(signed.kid)
            if key is not None:
                verify_jws(signed.signature, signed.digest, key)
            self._compare_members()
            # Had a party file been changed, it would have been named by now.
            demand(key is not None, MANIFEST, "no party file holds the key that signed it")
            self._read_parties(expected)
            self._read_witnesses()
            agency, _ = self.key(signed.kid, MANIFEST)
            demand(agency == self.manifest["agency"], MANIFEST, "another agency signed it")
            self.tell(MANIFEST, f"signed by {agency}")
            self._check_checkpoints()
            self._check_conflicts()
            self.counts(signed.kid, MANIFEST)
            self._check_key_records()

    def finish(self) -> Checked:
        """Return what the bundle is, once nothing in it is left that was not checked."""
        for name in sorted(self.members):
            if name.startswith(("notices/", "keys/records/")):
                demand(name in self.used, name, "it belongs to nothing that was checked")
        return Checked(
            agency=self.manifest["agency"],
            made_at=self.manifest["made_at"],
            origin=self.manifest["origin"],
            size=self.manifest["size"],
            revealed=self.manifest["revealed"],
            notices=len(self.manifest["notices"]),
            members=len(self.members),
            fingerprints=self.current,
            witnesses=tuple(self.manifest.get("witnesses", ())),
            conflicts=tuple(map(_in_doubt, self.manifest.get("conflicts", ()))),
            held=tuple(self.held),
            disputed=tuple(self.disputed),
        )

    def tell(self, member: str, told: str) -> None:
        """Note a check that held."""
        self.held.append(Held(member, told))

    def member(self, name: object, named_in: str) -> bytes:
        """Return a member that another one names."""
        there = isinstance(name, str) and name in self.members
        demand(there, named_in, f"{name} is missing")
        self.used.add(str(name))
        return self.members[str(name)]

    def text(self, name: object, named_in: str) -> str:
        """Return a member that has to be text."""
        return self.member(name, named_in).decode("utf-8")

    def _read_manifest(self) -> Jws:
        demand(MANIFEST in self.members, MANIFEST, "it is missing")
        signed = read_jws(self.members[MANIFEST], TYP)
        self.manifest = parse(signed.payload)
        schema = str(self.manifest["schema"])
        if schema != SCHEMA and schema.startswith(_FAMILY):
            raise RejectedError("NB-3104", found=schema, known=SCHEMA)
        demand(schema == SCHEMA, MANIFEST, "it is no manifest of a proof bundle")
        return signed

    def _loose_key(self, kid: str) -> VerifyKey | None:
        """Return a key by its thumbprint, from party files that nothing vouches for yet."""
        for name, data in self.members.items():
            if name.startswith("keys/") and name.endswith(".party.json"):
                with suppress(RejectedError):
                    keys = Party.from_bytes(data).verify_keys()
                    if kid in keys:
                        return keys[kid]
        return None

    def _compare_members(self) -> None:
        named: dict[str, str] = self.manifest["members"]
        for name, digest in named.items():
            demand(name in self.members, name, "it is missing")
            found = sha256(self.members[name]).hexdigest()
            demand(found == digest, name, "it was changed: its SHA-256 is another")
        extra = sorted(self.members.keys() - named.keys() - {MANIFEST})
        demand(not extra, extra[0] if extra else "", "it is not in the manifest")
        self.tell(MANIFEST, f"{len(named)} members have the SHA-256 that it names")

    def _read_parties(self, expected: Mapping[str, str]) -> None:
        for row in self.manifest["parties"]:
            name = str(row["member"])
            with of(name):
                data = self.member(name, MANIFEST)
                found = fingerprint(data)
                demand(found == row["fingerprint"], name, "it has another fingerprint")
                party = Party.from_bytes(data)
                demand(party.agency == row["agency"], name, "it belongs to another agency")
                if row["status"] == "current":
                    wanted = expected.get(party.agency, found)
                    demand(found == wanted, name, f"its fingerprint is not {wanted}")
                    self.current[party.agency] = found
                self._keep_keys(party, name)
                self.tell(name, f"{row['status']} keys of {party.agency}, {found}")

    def _read_witnesses(self) -> None:
        for vkey in self.manifest.get("witnesses", ()):
            verifier = Verifier.parse(vkey)
            demand(verifier.algorithm == COSIGNATURE, MANIFEST, f"{vkey} is no witness's key")
            self.checkpoints.cosigners.append(verifier)
            self._written(f"keys/witness-{verifier.key_id.hex()}.pem", verifier, MANIFEST)
            self.tell(MANIFEST, f"third witness {vkey}")

    def _keep_keys(self, party: Party, name: str) -> None:
        for kid, key in party.verify_keys().items():
            self.sign_keys[kid] = (party.agency, key)
            written = f"keys/{party.agency}-sign-{kid[:16]}.pem"
            pem = key.public.public_bytes(Encoding.PEM, PublicFormat.SubjectPublicKeyInfo)
            demand(self.member(written, name) == pem, written, "it is another key")
        for kid, ending in party.endings().items():
            self.endings[kid] = ending.or_earlier(self.endings.get(kid))
            if ending.revoked is not None:
                since = format_time(ending.revoked.at)
                self.tell(name, f"the key {kid} COUNTS FOR NOTHING since {since}: revoked")
        if party.agency == self.manifest["peer"]:
            self.peer_cosigners.update(party.cosigner_keys)
            self.revoked_by[fingerprint(self.members[name])] = {e.kid for e in party.revoked or ()}
        for verifier in party.cosigners():
            self.checkpoints.cosigners.append(verifier)
            written = f"keys/{party.agency}-cosigner-{verifier.key_id.hex()}.pem"
            self._written(written, verifier, name)
        for verifier in party.log_verifiers():
            self.checkpoints.log_keys.setdefault(party.agency, []).append(verifier)
            self._written(f"keys/{party.agency}-log-{verifier.key_id.hex()}.pem", verifier, name)

    def _written(self, written: str, verifier: Verifier, name: str) -> None:
        same = self.member(written, name) == note_key_pem(verifier)
        demand(same, written, "it is another key")

    def key(self, kid: str, name: str) -> tuple[str, VerifyKey]:
        """Return whose key a JWS names, and the key."""
        demand(kid in self.sign_keys, name, "no party file holds the key that signed it")
        return self.sign_keys[kid]

    def counts(
        self,
        kid: str,
        name: str,
        *,
        place: tuple[str, int, int] | None = None,
        index: int | None = None,
    ) -> None:
        """Fail where a signature by a key that ended is no evidence; see `not_counted`.

        What its signer alone would take back is noted as disputed.
        """
        ending = self.endings.get(kid)
        rule = not_counted(ending, place=place, index=index, cosigned=self.cosigned)
        if rule is None:
            return
        learned = self.learned.get(kid)
        found = disputed(ending, index=index, cosigned=self.cosigned, learned=learned)
        if found is None:
            raise EvidenceError("NB-3100", member=name, rule=rule)
        told = (
            f"its signer claims that others had its key since {format_time(found.since)}; but at"
            f" {found.cosigned_at:%Y-%m-%d %H:%M:%SZ} it cosigned itself the log whose record"
            f" {found.index} names exactly these bytes, before that log's record {found.learned},"
            " by which the other agency learned of the claim"
        )
        self.disputed.append(Held(name, told))

    def _check_conflicts(self) -> None:
        """Read what the peer signed and cannot both be true: a bundle may rest on it."""
        for said in self.manifest.get("conflicts", ()):
            for name in filter(None, (said.get("known"), said["told"])):
                with of(str(name)):
                    keys = self.checkpoints.log_keys.get(self.manifest["peer"], [])
                    verify_checkpoint(self.text(name, MANIFEST), keys)
            self.tell(str(said["told"]), _in_doubt(said))

    def _check_checkpoints(self) -> None:
        known = self.checkpoints
        for name in sorted(each for each in self.members if each.startswith("checkpoints/")):
            with of(name):
                agency = name.removeprefix("checkpoints/").partition("-")[0]
                point = known.note(self.text(name, MANIFEST), agency)
                self.tell(name, f"{agency} signed size {point.size}")
                for each in known.seen[point.origin, point.size]:
                    self.tell(name, f"{each.verifier.name} saw it at {each.at:%Y-%m-%d %H:%M:%SZ}")
        origin, size = self.manifest["origin"], self.manifest["size"]
        demand((origin, size) in known.roots, MANIFEST, "its checkpoint is missing")
        alone = {at for log, at in known.roots if log == origin and at != size}
        for name in sorted(each for each in self.members if each.startswith("consistency/")):
            with of(name):
                log, old, new = known.grew(self.member(name, MANIFEST))
                if (log, new) == (origin, size):
                    alone.discard(old)
                self.tell(name, f"size {old} is the beginning of size {new}")
        for at in sorted(alone):
            missing = f"consistency/{self.manifest['agency']}-{at:012d}-{size:012d}.json"
            demand(not alone, MANIFEST, f"{missing} is missing")
        self.cosigned = known.cosigned(origin, self.peer_cosigners)

    def proven(
        self, record: object, proof: object, named_in: str, agency: str
    ) -> tuple[int, tuple[str, int], dict[str, Any]]:
        """Check a record's tlog-proof under a checkpoint of `agency`.

        Returns its index, log and size of the checkpoint, and what the record says.
        """
        name, data = str(record), self.member(record, named_in)
        with of(str(proof)):
            found = parse_tlog_proof(self.text(proof, named_in))
            point = self.checkpoints.note(found.checkpoint, agency)
        with of(name):
            verify_inclusion(
                leaf_hash(data),
                index=found.index,
                size=point.size,
                proof=found.proof,
                root=point.root,
            )
            return found.index, (point.origin, point.size), dict(parse(data))

    def _check_key_records(self) -> None:
        known = {row["fingerprint"] for row in self.manifest["parties"]}
        for name in sorted(self.members):
            if name.startswith("keys/records/") and name.endswith(".json"):
                proof = f"{name.removesuffix('json')}tlog"
                index, _, said = self.proven(name, proof, name, self.manifest["agency"])
                with of(name):
                    file = said["detail"]["fingerprint"]
                    demand(file in known, name, "its party is missing")
                    if said["action"] == "party.trusted":
                        for kid in self.revoked_by.get(file, ()):
                            self.learned[kid] = min(index, self.learned.get(kid, index))
                    self.tell(name, f"record {index}: {said['action']} {said['time']}")

    def envelope(self, name: object, named_in: str, author: str) -> Envelope:
        """Return an envelope that `author` signed."""
        data = self.member(name, named_in)
        keys = {kid: key for kid, (agency, key) in self.sign_keys.items() if agency == author}
        with of(str(name)):
            return verify(read(data), keys)
