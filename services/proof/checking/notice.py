"""One notice of a bundle: its messages, records and receipts, and that they belong together."""

from dataclasses import dataclass, field
from typing import Any

from schemas.canonical import b64, parse, unb64
from schemas.envelope import SALT_BYTES, commitment
from schemas.envelope import TYP as ENVELOPE_TYP
from schemas.errors import EvidenceError
from schemas.jose import read_jws, verify_jws
from services.ledger.records import opening_holds
from services.proof.checking.bundle import Bundle
from services.proof.checking.demands import demand, of
from services.proof.members import MANIFEST, REVEALED


@dataclass(slots=True)
class BundledNotice:
    """One notice: its messages, records and receipts, and that they belong together."""

    bundle: Bundle
    notice_id: str
    said: dict[str, Any] = field(default_factory=dict)
    records: dict[tuple[str, Any], dict[str, Any]] = field(default_factory=dict)
    by_index: dict[str, dict[str, Any]] = field(default_factory=dict)
    indexes: dict[tuple[str, str], int] = field(default_factory=dict)
    answered: dict[str, int] = field(default_factory=dict)
    commitments: dict[str, bytes | None] = field(default_factory=dict)

    @property
    def _place(self) -> str:
        return f"notices/{self.notice_id}"

    @property
    def _evidence(self) -> str:
        return f"{self._place}/evidence.json"

    def check(self) -> None:
        """Check the records first, then each message against them."""
        manifest = self.bundle.manifest
        with of(self._evidence):
            self.said = parse(self.bundle.member(self._evidence, MANIFEST))
            same = self.said["notice_id"] == self.notice_id
            demand(same, self._evidence, "it is of another notice")
            for each in self.said["records"]:
                self._check_record(each, manifest["agency"], manifest["origin"])
            for message in self.said["messages"]:
                sent = message["direction"] == "sent"
                ours, theirs = manifest["agency"], manifest["peer"]
                self._check_message(message, *((ours, theirs) if sent else (theirs, ours)))
        for name in sorted(self.bundle.members):
            if name.startswith(f"{self._place}/revealed/"):
                with of(name):
                    self._check_revealed(name)

    def _check_record(self, each: dict[str, Any], agency: str, log: str) -> None:
        name = each["record"]
        index, (origin, _), said = self.bundle.proven(name, each["proof"], self._evidence, agency)
        with of(name):
            demand(origin == log, name, "it is of another log")
            demand(index == each["index"], name, "it has another index")
            demand(said["action"] == each["action"], name, "it tells of another act")
            demand(said["notice_id"] == self.notice_id, name, "it is of another notice")
        self.records[said["action"], said.get("message_id")] = said
        self.by_index[str(index)] = said
        if "envelope" in said:
            place = (str(said.get("message_id")), said["envelope"])
            self.indexes[place] = min(index, self.indexes.get(place, index))
        if "answer" in said.get("detail", {}):
            answer = said["detail"]["answer"]
            self.answered[answer] = min(index, self.answered.get(answer, index))
        self.bundle.tell(name, f"record {index} of {agency}: {said['action']} {said['time']}")

    def _check_message(self, message: dict[str, Any], author: str, reader: str) -> None:
        message_id, digest = message["message_id"], unb64(message["hash"])
        where = self._evidence
        if "envelope" in message:
            where = message["envelope"]
            self._check_envelope(message, author, reader)
        if "erased" in message:
            where = message["erased"]
            signed = self.bundle.member(where, self._evidence)
            with of(where):
                left = read_jws(signed, ENVELOPE_TYP)
                agency, key = self.bundle.key(left.kid, where)
                demand(agency == author, where, f"{author} did not sign it")
                verify_jws(left.signature, digest, key)
                self._counts(left.kid, where, message)
                self.bundle.tell(where, f"erased; {author} signed the bytes with its hash")
        action = "message.sent" if message["direction"] == "sent" else "message.received"
        record = self.records.get((action, message_id)) or self.records.get(
            ("message.refused", message_id)
        )
        if record is not None and "envelope" in record:
            demand(record["envelope"] == message["hash"], where, "our record is of other bytes")
            bound = self.commitments.get(message_id)
            if bound is not None and "commitment" in record:
                same = record["commitment"] == b64(bound)
                demand(same, where, "our record has another commitment")
        if "receipt" in message:
            names = message["receipt"]
            name = names["record"]
            proof = names["proof"]
            index, (log, size), said = self.bundle.proven(name, proof, self._evidence, reader)
            facts = (said.get("action"), said.get("message_id"), said.get("envelope"))
            expected = ("message.received", message_id, message["hash"])
            demand(facts == expected, name, f"it is no receipt of message {message_id}")
            self.bundle.tell(name, f"{reader} has it since {said['time']}, record {index}")
            if "tied" in names:
                tied = names["tied"]
                joins = parse(self.bundle.member(tied, self._evidence))
                same = (joins["origin"], joins["old"]) == (log, size)
                demand(same, tied, f"it ties another checkpoint than that of {name}")
            seen = self.bundle.checkpoints.witnessed(log, size)
            self.bundle.tell(name, f"under the checkpoint of {size} of its log, {seen}")
        if "refusal" in message:
            self._check_refusal(message["refusal"], message, reader)

    def _check_refusal(self, name: str, message: dict[str, Any], reader: str) -> None:
        refusal = self.bundle.envelope(name, self._evidence, reader)
        with of(name):
            told = refusal.attributes
            place = (told.stream, told.generation, told.sequence)
            index = self.answered.get(str(told.id))
            self.bundle.counts(refusal.kid, name, place=place, index=index)
            said = parse(refusal.plain())
            facts = (said["message_id"], said["envelope"])
            same = facts == (message["message_id"], message["hash"])
            demand(same, name, f"it is no refusal of message {message['message_id']}")
            self.bundle.tell(name, f"{reader} refused it at {said['at']}: {said['code']}")

    def _check_envelope(self, message: dict[str, Any], author: str, reader: str) -> None:
        name = message["envelope"]
        envelope = self.bundle.envelope(name, self._evidence, author)
        told = envelope.attributes
        facts = (b64(envelope.hash), str(told.id), str(told.subject), told.recipient)
        expected = (message["hash"], message["message_id"], self.notice_id, reader)
        demand(facts == expected, name, "it is another message, or of another notice")
        place = (told.stream, told.generation, told.sequence)
        expected_place = (message["stream"], message["generation"], message["sequence"])
        demand(place == expected_place, name, "it belongs to another place of its stream")
        with of(name):
            self._counts(envelope.kid, name, message)
        self.commitments[message["message_id"]] = told.commitment
        self.bundle.tell(name, f"{told.type}, signed by {author}")

    def _counts(self, kid: str, name: str, message: dict[str, Any]) -> None:
        place = (message["stream"], message["generation"], message["sequence"])
        index = self.indexes.get((message["message_id"], message["hash"]))
        self.bundle.counts(kid, name, place=place, index=index)

    def _check_revealed(self, name: str) -> None:
        demand(self.bundle.manifest["revealed"], name, "it is personal, in a bundle without it")
        data = self.bundle.member(name, self._evidence)
        stem = name.removeprefix(f"{self._place}/revealed/").removesuffix(".json")
        if stem == "openings":
            for index, opened in parse(data).items():
                known = self.by_index.get(index)
                demand(known, name, f"record {index} is not in here")
                holds = opening_holds(known or {}, opened)
                demand(holds, name, f"record {index} committed to something else")
            self.bundle.tell(name, "names of the records")
            return
        found = REVEALED.fullmatch(data)
        if found is None:
            raise EvidenceError("NB-3100", member=name, rule="it has another form")
        salt = unb64(found[2])
        same = len(salt) == SALT_BYTES and commitment(salt, found[1]) == self.commitments.get(stem)
        demand(same, name, "it is not what was committed to")
        self.bundle.tell(name, f"this is what message {stem} says")
