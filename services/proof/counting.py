"""Which signatures of a bundle count: a key that ended proves what was provably there before.

What does not count is left out, by name, instead of letting an honest bundle fail. What the other
agency disputes, though it had cosigned our record of it, stays in and is told apart.
"""

from collections.abc import Mapping, Sequence
from dataclasses import dataclass, field
from typing import Self
from uuid import UUID

from schemas.canonical import b64, parse
from schemas.ending import Disputed
from schemas.envelope import read
from schemas.errors import ConflictError
from services.exchange.weighing import Weighing
from services.ledger.store import Transaction
from services.proof.store import Message, Recorded


@dataclass(frozen=True, slots=True, kw_only=True)
class Counting:
    """What is known of keys that ended, and where our log names the bytes in question.

    `indexes` are those of our records by message and hash of its bytes, `answered` by the id of a
    refusal. `disputed` fills while messages and refusals are looked at.
    """

    weighing: Weighing
    indexes: Mapping[tuple[UUID, str], int]
    answered: Mapping[str, int]
    disputed: list[tuple[UUID, Disputed]] = field(default_factory=list)

    @classmethod
    async def read(cls, tx: Transaction, recorded: Sequence[Recorded]) -> Self:
        """Read what is known; `recorded` are our records of the notices in question."""
        weighing = await Weighing.read(tx)
        indexes: dict[tuple[UUID, str], int] = {}
        answered: dict[str, int] = {}
        for each in recorded if weighing.endings else ():
            index = each.record_index
            if index is None:
                continue
            said = parse(each.record)
            if "envelope" in said and "message_id" in said:
                place = UUID(said["message_id"]), said["envelope"]
                indexes[place] = min(index, indexes.get(place, index))
            if "answer" in said.get("detail", {}):
                answer = said["detail"]["answer"]
                answered[answer] = min(index, answered.get(answer, index))
        return cls(weighing=weighing, indexes=indexes, answered=answered)

    async def divide(
        self, tx: Transaction, messages: Sequence[Message]
    ) -> tuple[list[Message], list[Message]]:
        """Return the messages whose signature says something, and those that prove nothing.

        Raises `ConflictError` NB-3251 where that cannot be told before the next seal.
        """
        said: list[Message] = []
        left_out: list[Message] = []
        for each in messages:
            (said if await self._holds_message(tx, each) else left_out).append(each)
        return said, left_out

    async def refusal_holds(self, tx: Transaction, message_id: UUID, refusal: bytes) -> bool:
        """Return whether the signature of a refusal of a message says something."""
        signed = read(refusal)
        told = signed.claims
        place = None if told is None else (told.stream, told.generation, told.sequence)
        index = None if told is None else self.answered.get(str(told.id))
        return await self._holds(tx, message_id, signed.kid, place, index)

    async def _holds_message(self, tx: Transaction, message: Message) -> bool:
        signed = message.envelope or message.left
        if signed is None or not self.weighing.endings:
            return True
        place = (message.stream, message.generation, message.sequence)
        index = self.indexes.get((message.message_id, b64(message.envelope_hash)))
        return await self._holds(tx, message.message_id, read(signed).kid, place, index)

    async def _holds(
        self,
        tx: Transaction,
        message_id: UUID,
        kid: str,
        place: tuple[str, int, int] | None,
        index: int | None,
    ) -> bool:
        if self.weighing.rule(kid, place=place, index=index) is None:
            return True
        if kid in self.weighing.not_sealed:
            raise ConflictError("NB-3251", kid=kid)
        found = self.weighing.disputed(kid, index=index)
        if found is None:
            return False
        self.disputed.append((message_id, await self.weighing.first_seen(tx, found)))
        return True
