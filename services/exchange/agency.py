"""One agency as its processes and commands see it: settings, store, keys, and whom it trusts."""

from collections.abc import AsyncIterator, Mapping
from contextlib import asynccontextmanager
from dataclasses import dataclass

from schemas.checkpoint import Verifier
from schemas.ending import Ending
from schemas.envelope import PublicEncryptionKey, VerifyKey, source_of
from schemas.errors import (
    EvidenceError,
    NotAllowedError,
    NotFoundError,
    RejectedError,
    UnavailableError,
)
from schemas.party import Party
from services.exchange import anchors, outbox, parties
from services.exchange.store import standing
from services.keys import KeyRing
from services.ledger.anchor import Anchor
from services.ledger.store import Prepare, Store
from services.settings import Settings


@dataclass(frozen=True, slots=True, kw_only=True)
class Directory:
    """The peer's public keys, from the party files that a person trusted.

    Signatures under keys of former party files still verify, as far as their key had not ended
    there (`endings`, by `kid`); we encrypt to the newest alone, which has this `fingerprint`.
    """

    verify_keys: Mapping[str, VerifyKey]
    endings: Mapping[str, Ending]
    log_keys: tuple[Verifier, ...]
    cosigners: tuple[Verifier, ...]
    newest: Party | None
    fingerprint: str | None

    @property
    def encrypt_to(self) -> PublicEncryptionKey:
        """The peer's encryption key. Raises `UnavailableError` before any party file is trusted."""
        if self.newest is None:
            raise UnavailableError("NB-4011")
        return self.newest.encryption_key()


@dataclass(slots=True, kw_only=True)
class Agency:
    """What every part of the exchange needs to know about its own side."""

    settings: Settings
    store: Store
    ring: KeyRing
    directory: Directory
    anchor: Anchor

    @property
    def name(self) -> str:
        """Our short name, `ice` or `hhs`."""
        return self.settings.agency

    @property
    def peer(self) -> str:
        """The other side's short name."""
        return self.settings.peer

    @property
    def source(self) -> str:
        """What stands as `source` in our envelopes."""
        return source_of(self.settings.domain, self.name)

    async def reload(self) -> None:
        """Read keys and party files again: someone rotated, or trusted another file.

        Raises `UnavailableError` NB-4014 while the folder is in the middle of a change; what was
        read before stays in use.
        """
        try:
            async with self.store.transaction() as tx:
                ring = await parties.settle(tx, self.settings)
                await parties.register_own(tx, ring.party(partitions=self.settings.partitions))
            self.ring = ring
        except (NotFoundError, NotAllowedError, RejectedError) as error:
            raise UnavailableError("NB-4014", cause=error.code) from error
        self.directory = await read_directory(self.store, self.peer)

    async def hold_to_anchor(self) -> None:
        """Look whether the store still continues what was anchored.

        Raises `EvidenceError` NB-3150 to NB-3153 where it does not, or where the anchor is gone.
        """
        async with self.store.glance() as look:
            # Another process may have renewed the log key since, and signed with it.
            self.anchor = await anchors.own_anchor(look, self.settings, self.ring)
            await anchors.hold(look, self.anchor)


async def read_directory(store: Store, peer: str) -> Directory:
    """Return the peer's keys as trusted now."""
    async with store.transaction() as tx:
        rows = [row for row in await parties.listed(tx) if row.agency == peer]
    files = [Party.from_bytes(row.party) for row in rows]
    current = bool(rows) and rows[0].status == "current"
    verify_keys: dict[str, VerifyKey] = {}
    log_keys: dict[str, Verifier] = {}
    cosigners: dict[str, Verifier] = {}
    endings: dict[str, Ending] = {}
    for party in reversed(files):
        verify_keys.update(party.verify_keys())
        log_keys.update({verifier.vkey(): verifier for verifier in party.log_verifiers()})
        cosigners.update({verifier.vkey(): verifier for verifier in party.cosigners()})
        for kid, ending in party.endings().items():
            # What ended once has ended, whatever a later file leaves out.
            endings[kid] = ending.or_earlier(endings.get(kid))
    return Directory(
        verify_keys=verify_keys,
        endings=endings,
        log_keys=tuple(log_keys.values()),
        cosigners=tuple(cosigners.values()),
        newest=files[0] if current else None,
        fingerprint=rows[0].fingerprint if current else None,
    )


@asynccontextmanager
async def open_agency(
    settings: Settings, *, prepare: Prepare | None = None
) -> AsyncIterator[Agency]:
    """Open an agency's store and keys; its own party file and streams are there on entry.

    `prepare` is done with each connection first.
    Raises `UnavailableError` when the store does not answer, `NotFoundError` without keys,
    `EvidenceError` NB-3060 for a store that was restored and is not adopted, NB-3150 to NB-3153 for
    one that does not continue what its anchor says.
    """
    ring = KeyRing.load(settings.keys_folder)
    store = await Store.open(settings.database_url_required, prepare=prepare)
    try:
        async with store.transaction() as tx:
            if await standing.restored(tx):
                raise EvidenceError("NB-3060")
            anchor = await anchors.own_anchor(tx, settings, ring)
            await anchors.hold(tx, anchor)
            ring = await parties.settle(tx, settings)
            own = ring.party(partitions=settings.partitions)
            await parties.register_own(tx, own)
            await outbox.declare_streams(
                tx,
                sender=settings.agency,
                recipient=settings.peer,
                partitions=settings.partitions,
                generation=ring.generation,
            )
        yield Agency(
            settings=settings,
            store=store,
            ring=ring,
            directory=await read_directory(store, settings.peer),
            anchor=anchor,
        )
    finally:
        await store.close()
