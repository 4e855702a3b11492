"""One agency as its processes and commands see it: settings, store, keys, and whom it trusts."""

from collections.abc import AsyncIterator, Mapping
from contextlib import asynccontextmanager
from dataclasses import dataclass

from schemas.checkpoint import Verifier
from schemas.envelope import PublicEncryptionKey, VerifyKey, source_of
from schemas.errors import NotAllowedError, NotFoundError, RejectedError, UnavailableError
from schemas.party import Party
from services.exchange import outbox, parties
from services.keys import KeyRing
from services.ledger.store import Store
from services.settings import Settings


@dataclass(frozen=True, slots=True, kw_only=True)
class Directory:
    """The peer's public keys, from the party files that a person trusted.

    Signatures under keys of former party files still verify; we encrypt to the newest alone.
    """

    verify_keys: Mapping[str, VerifyKey]
    log_keys: tuple[Verifier, ...]
    newest: Party | None

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
            self.ring = KeyRing.load(self.settings.keys_folder)
        except (NotFoundError, NotAllowedError, RejectedError) as error:
            raise UnavailableError("NB-4014", cause=error.code) from error
        self.directory = await read_directory(self.store, self.peer)


async def read_directory(store: Store, peer: str) -> Directory:
    """Return the peer's keys as trusted now."""
    async with store.transaction() as tx:
        rows = [row for row in await parties.listed(tx) if row.agency == peer]
    files = [Party.from_bytes(row.party) for row in rows]
    verify_keys: dict[str, VerifyKey] = {}
    log_keys: dict[str, Verifier] = {}
    for party in reversed(files):
        verify_keys.update(party.verify_keys())
        log_keys.update({verifier.vkey(): verifier for verifier in party.log_verifiers()})
    return Directory(
        verify_keys=verify_keys,
        log_keys=tuple(log_keys.values()),
        newest=files[0] if files and rows[0].status == "current" else None,
    )


@asynccontextmanager
async def open_agency(settings: Settings) -> AsyncIterator[Agency]:
    """Open an agency's store and keys; its own party file and streams are there on entry.

    Raises `UnavailableError` when the store does not answer, `NotFoundError` without keys.
    """
    ring = KeyRing.load(settings.keys_folder)
    store = await Store.open(settings.database_url_required)
    try:
        async with store.transaction() as tx:
            own = ring.party(partitions=settings.partitions)
            await parties.register_own(tx, own)
            await outbox.declare_streams(
                tx,
                sender=settings.agency,
                recipient=settings.peer,
                partitions=settings.partitions,
            )
        yield Agency(
            settings=settings,
            store=store,
            ring=ring,
            directory=await read_directory(store, settings.peer),
        )
    finally:
        await store.close()
