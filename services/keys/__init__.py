"""The key ring: an agency's private keys, each in a file that its owner alone can read.

A folder (0700) holds PKCS8 PEM files (0600) and `ring.json`, which says whose they are, which one
signs and which ended. Signing and encryption keys are P-256 and numbered: the newest is encrypted
to, and every one of them still opens what was encrypted to it. A new signing key is *prepared*
until `ring.json` names it: it signs nothing yet, and whoever is cut off in between leaves a ring
that works as before. The log key and the cosigner key are Ed25519; the log key's name is the origin
of the ledger, `<domain>/noticebus/<agency>/<generation>`. While one of these two is renewed, the
new key and the one before it both sign. What others must know of them is in the party file, whose
bytes stay the same until keys or partitions change.

An encryption key to which nothing unanswered is sealed any more can be *put away*: its file moves
to a folder of its own, from which files are opened (backups, archives, what the other agency has
seen) and no message. It may be kept elsewhere then.

Files that others may read are refused: a key that leaked must be noticed, not used. No key is ever
overwritten. Whoever has the folder can sign for the agency; it is not encrypted at rest.
"""

import errno
import tempfile
from collections.abc import Collection, Mapping, Sequence
from dataclasses import dataclass, field, replace
from datetime import UTC, datetime
from pathlib import Path
from typing import Self

from cryptography.hazmat.primitives.asymmetric import ec, ed25519

from schemas.casetag import index_key_text
from schemas.checkpoint import COSIGNATURE, Signer, Verifier
from schemas.ending import Retirement, Revocation
from schemas.errors import ConflictError, NotFoundError, RejectedError
from schemas.jose import PrivateKey, SigningKey, public_jwk
from schemas.party import KeySet, LanePartitions, Party, PublicKey
from services.keys.files import (
    COSIGNER,
    FOLDER_MODE,
    INDEX_FILE,
    LOG,
    PUT_AWAY,
    RING_FILE,
    Ring,
    changing,
    made_at,
    move_key,
    number_of,
    numbered,
    p256_key,
    pem,
    raw,
    read_index_key,
    read_ring,
    refuse_open,
    signers,
    stems_of,
    sync,
    write,
    write_key,
    write_ring,
)

__all__ = ["COSIGNER", "INDEX_FILE", "LOG", "PUT_AWAY", "RING_FILE", "KeyRing"]


@dataclass(frozen=True, slots=True, kw_only=True)
class KeyRing:
    """An agency's keys. The newest encryption key comes first, and the signing key that signs.

    They are in `folder`. `retired` and `revoked` say how former signing keys ended; `prepared` will
    sign one day. While they are renewed, `log_also` and `cosigner_also` sign beside the newest
    ones; `log_former` are those that signed this log before. `made_at` is when the keys in use were
    made: signing, encryption, log, cosigner; `key_made_at` has all that sign, signed or open
    messages, by `kid`.
    """

    folder: Path
    agency: str
    domain: str
    generation: int
    changed_at: datetime
    signing_keys: tuple[SigningKey, ...]
    encryption_keys: tuple[PrivateKey, ...]
    log_key: Signer
    cosigner: Signer
    retired: tuple[Retirement, ...] = ()
    revoked: tuple[Revocation, ...] = ()
    prepared: SigningKey | None = None
    log_also: Signer | None = None
    cosigner_also: Signer | None = None
    log_former: tuple[Verifier, ...] = ()
    made_at: Mapping[str, datetime] = field(default_factory=dict)
    key_made_at: Mapping[str, datetime] = field(default_factory=dict)
    index_key: bytes | None = field(default=None, repr=False)

    @classmethod
    def generate(cls, folder: Path, domain: str, agency: str, *, generation: int = 1) -> Self:
        """Make all keys of an agency in a new folder.

        The folder appears complete or not at all. Raises `ConflictError` NB-4031 when there is
        something in it already, `RejectedError` NB-4034 when it cannot be made.
        """
        if folder.is_dir() and any(folder.iterdir()):
            raise ConflictError("NB-4031", folder=folder)
        try:
            folder.parent.mkdir(parents=True, exist_ok=True)
            with tempfile.TemporaryDirectory(dir=folder.parent, prefix=f".{folder.name}-") as made:
                part = Path(made) / "keys"
                part.mkdir(mode=FOLDER_MODE)
                for name in ("signing-1", "encryption-1"):
                    write(part / f"{name}.pem", pem(ec.generate_private_key(ec.SECP256R1())))
                for name in ("log", "cosigner"):
                    write(part / f"{name}.pem", pem(ed25519.Ed25519PrivateKey.generate()))
                now = datetime.now(UTC)
                made_at = dict.fromkeys(("signing-1", "encryption-1", LOG, COSIGNER), now)
                ring = Ring(
                    agency=agency,
                    domain=domain,
                    generation=generation,
                    changed_at=now,
                    made=made_at,
                )
                write_ring(part, ring)
                part.rename(folder)
            sync(folder.parent)
        except OSError as error:
            if error.errno == errno.ENOTEMPTY:
                raise ConflictError("NB-4031", folder=folder) from None
            raise RejectedError("NB-4034", folder=folder, rule=error.strerror) from None
        return cls.load(folder)

    @classmethod
    def load(cls, folder: Path) -> Self:
        """Read all keys from a folder.

        Raises `NotFoundError` NB-4030 without keys, `NotAllowedError` NB-4032 for files that others
        may read, `RejectedError` NB-4033 for what is no such key.
        """
        if not folder.is_dir():
            raise NotFoundError("NB-4030", folder=folder)
        refuse_open(folder)
        if not (folder / RING_FILE).exists():
            raise NotFoundError("NB-4030", folder=folder)
        ring = read_ring(folder)
        stem = f"{ring.domain}/noticebus/{ring.agency}"
        signing = numbered(folder, "signing")
        in_use = ring.signing or number_of(signing[0])
        keys = {number_of(path): SigningKey.of(p256_key(path)) for path in signing}
        if in_use not in keys:
            path = folder / f"signing-{in_use}.pem"
            raise RejectedError("NB-4033", path=path, rule="it is missing")
        logs = signers(folder, ring, LOG, f"{stem}/{ring.generation}")
        cosigners = signers(folder, ring, COSIGNER, f"{stem}/cosigner")
        opening = numbered(folder, "encryption")
        opens = [PrivateKey.of(p256_key(path)) for path in opening]
        prepared = next((key for number, key in keys.items() if number > in_use), None)
        return cls(
            folder=folder,
            agency=ring.agency,
            domain=ring.domain,
            generation=ring.generation,
            changed_at=ring.changed_at,
            signing_keys=tuple(key for number, key in keys.items() if number <= in_use),
            encryption_keys=tuple(opens),
            log_key=logs[0],
            log_also=logs[1] if LOG in ring.overlapping else None,
            log_former=tuple(each.verifier for each in logs[2 if LOG in ring.overlapping else 1 :]),
            cosigner=cosigners[0],
            cosigner_also=cosigners[1] if COSIGNER in ring.overlapping else None,
            retired=ring.retired,
            revoked=ring.revoked,
            prepared=prepared,
            made_at={
                "signing": made_at(folder / f"signing-{in_use}.pem", ring),
                "encryption": made_at(numbered(folder, "encryption")[0], ring),
                LOG: made_at(folder / f"{stems_of(folder, ring, LOG)[0]}.pem", ring),
                COSIGNER: made_at(folder / f"{stems_of(folder, ring, COSIGNER)[0]}.pem", ring),
            },
            key_made_at={
                **{
                    key.kid: made_at(folder / f"signing-{number}.pem", ring)
                    for number, key in keys.items()
                },
                **{k.kid: made_at(path, ring) for k, path in zip(opens, opening, strict=True)},
            },
            index_key=read_index_key(folder),
        )

    @classmethod
    def prepare(cls, folder: Path) -> Self:
        """Make a signing key that signs nothing yet, or keep the one that is prepared already.

        `end` lets it sign. Whatever happens in between, the key that signs now goes on signing.
        """
        with changing(folder) as said:
            ring = cls.load(folder)
            if ring.prepared is not None:
                return ring
            number = number_of(numbered(folder, "signing")[0])
            path = folder / f"signing-{number + 1}.pem"
            # From here on a newer file is no longer taken for the key that signs.
            signing = said.signing or number
            made = {**said.made, path.stem: datetime.now(UTC)}
            write_ring(folder, replace(said, signing=signing, made=made))
            write_key(path, pem(ec.generate_private_key(ec.SECP256R1())))
        return cls.load(folder)

    @classmethod
    def end(
        cls,
        folder: Path,
        *,
        retired: Sequence[Retirement] = (),
        revoked: Sequence[Revocation] = (),
    ) -> Self:
        """Note that signing keys ended; where the one in use is among them, the prepared one signs.

        Safe to repeat, and with ends that the ring knows already. Raises `RejectedError` NB-4033
        when no key would be left to sign.
        """
        ring = cls.load(folder)
        if all(e in ring.retired for e in retired) and all(e in ring.revoked for e in revoked):
            return ring
        with changing(folder) as said:
            ring = cls.load(folder)
            known = {each.kid for each in said.retired}, {each.kid for each in said.revoked}
            fresh_retired = [each for each in retired if each.kid not in known[0]]
            fresh_revoked = [each for each in revoked if each.kid not in known[1]]
            if not fresh_retired and not fresh_revoked:
                return ring
            ended = {each.kid for each in fresh_retired} | {each.kid for each in fresh_revoked}
            times = [each.at for each in fresh_retired] + [each.at for each in fresh_revoked]
            signing = said.signing
            if ring.signing.kid in ended:
                number = number_of(numbered(folder, "signing")[0])
                if ring.prepared is None:
                    path = folder / f"signing-{number + 1}.pem"
                    raise RejectedError("NB-4033", path=path, rule="it is missing")
                signing = number
            write_ring(
                folder,
                replace(
                    said,
                    signing=signing,
                    retired=(*said.retired, *fresh_retired),
                    revoked=(*said.revoked, *fresh_revoked),
                    changed_at=max([said.changed_at, *times]),
                ),
            )
        return cls.load(folder)

    @classmethod
    def add_encryption_key(cls, folder: Path) -> Self:
        """Make a new encryption key, which the party file names from now on.

        The former ones only open what was encrypted to them.
        """
        with changing(folder) as said:
            number = 1 + number_of(numbered(folder, "encryption")[0])
            path = folder / f"encryption-{number}.pem"
            write_key(path, pem(ec.generate_private_key(ec.SECP256R1())))
            now = datetime.now(UTC)
            write_ring(folder, replace(said, changed_at=now, made={**said.made, path.stem: now}))
        return cls.load(folder)

    @classmethod
    def put_away(cls, folder: Path, kids: Collection[str]) -> Self:
        """Let former encryption keys open files alone; safe to repeat, the newest always stays."""
        with changing(folder):
            for path in numbered(folder, "encryption")[1:]:
                if PrivateKey.of(p256_key(path)).kid in kids:
                    move_key(path, folder / PUT_AWAY)
        return cls.load(folder)

    @classmethod
    def bring_back(cls, folder: Path) -> Self:
        """Let every encryption key open messages again that was put away and is still there."""
        with changing(folder):
            for path in _away(folder):
                move_key(path, folder)
        return cls.load(folder)

    @classmethod
    def add_note_key(cls, folder: Path, use: str) -> Self:
        """Make a new log or cosigner key; until `end_overlap` the one before it signs as well.

        Raises `ConflictError` NB-3187 while the last such change is not finished.
        """
        with changing(folder) as said:
            if use in said.overlapping:
                raise ConflictError("NB-3187", use=use)
            stems = stems_of(folder, said, use)
            beginning = f"{LOG}-{said.generation}" if use == LOG else use
            path = folder / f"{beginning}-{len(stems) + 1}.pem"
            # What an attempt left that was cut off never signed, and is as good as a new one.
            if not path.exists():
                write_key(path, pem(ed25519.Ed25519PrivateKey.generate()))
            now = datetime.now(UTC)
            changed = replace(
                said,
                notes={**said.notes, use: (path.stem, *stems)},
                overlapping=said.overlapping | {use},
                changed_at=now,
                made={**said.made, path.stem: now},
            )
            write_ring(folder, changed)
        return cls.load(folder)

    @classmethod
    def end_overlap(cls, folder: Path, use: str) -> Self:
        """Let the newest log or cosigner key sign alone.

        Raises `ConflictError` NB-3188 when no such change is under way.
        """
        with changing(folder) as said:
            if use not in said.overlapping:
                raise ConflictError("NB-3188", use=use)
            rest = said.overlapping - {use}
            write_ring(folder, replace(said, overlapping=rest, changed_at=datetime.now(UTC)))
        return cls.load(folder)

    @classmethod
    def add_index_key(cls, folder: Path, key: bytes) -> Self:
        """Keep the index key that both agencies share; the one that is there may be given again.

        Raises `ConflictError` NB-3222 where there is another one: tags made with it would no longer
        be found.
        """
        with changing(folder):
            found = read_index_key(folder)
            if found is None:
                write_key(folder / INDEX_FILE, index_key_text(key))
            elif found != key:
                raise ConflictError("NB-3222", path=folder / INDEX_FILE)
        return cls.load(folder)

    @classmethod
    def begin_generation(cls, folder: Path, generation: int) -> Self:
        """Make a new log key for a later generation, which signs from now on; safe to repeat.

        The log key of an earlier generation stays in its file and signs nothing any more. Raises
        `ConflictError` NB-4035 for a generation that is not later.
        """
        ring = cls.load(folder)
        if ring.generation == generation:
            return ring
        if generation < ring.generation:
            raise ConflictError("NB-4035", generation=generation, found=ring.generation)
        with changing(folder) as said:
            path = folder / f"log-{generation}.pem"
            # What an attempt left that was cut off never signed: the ring does not name it.
            path.unlink(missing_ok=True)
            write(path, pem(ed25519.Ed25519PrivateKey.generate()))
            now = datetime.now(UTC)
            changed = replace(
                said,
                generation=generation,
                notes={use: stems for use, stems in said.notes.items() if use != LOG},
                overlapping=said.overlapping - {LOG},
                changed_at=now,
                made={**said.made, path.stem: now},
            )
            write_ring(folder, changed)
        return cls.load(folder)

    @property
    def signing(self) -> SigningKey:
        """The key that signs envelopes."""
        return self.signing_keys[0]

    @property
    def decryption(self) -> Mapping[str, PrivateKey]:
        """Every key that opens what was encrypted to this agency, by `kid`."""
        return {key.kid: key for key in self.encryption_keys}

    def put_away_keys(self) -> tuple[PrivateKey, ...]:
        """Read the encryption keys that were put away, as far as they are still there."""
        return tuple(PrivateKey.of(p256_key(path)) for path in _away(self.folder))

    def opening_files(self) -> Mapping[str, PrivateKey]:
        """Return every key that opens files of ours, those that were put away included, by `kid`.

        Messages are opened by `decryption` alone.
        """
        return {key.kid: key for key in (*self.encryption_keys, *self.put_away_keys())}

    @property
    def log_verifiers(self) -> tuple[Verifier, ...]:
        """The public halves of all keys that sign, or have signed, this generation's log."""
        also = () if self.log_also is None else (self.log_also.verifier,)
        return (self.log_key.verifier, *also, *self.log_former)

    @property
    def cosigners(self) -> tuple[Signer, ...]:
        """The keys that cosign now: the newest, and while it is renewed the one before it."""
        return (
            (self.cosigner,)
            if self.cosigner_also is None
            else (
                self.cosigner,
                self.cosigner_also,
            )
        )

    def party(
        self, *, partitions: Mapping[str, int] | None = None, made_at: datetime | None = None
    ) -> bytes:
        """Return this agency's party file: canonical JSON, the public halves of all keys.

        `made_at` is when the keys last changed, unless given, so that the same keys and partitions
        make the same bytes and keep their fingerprint.
        """
        public = [
            *(public_jwk(key.private.public_key(), use="sig") for key in self.signing_keys),
            # The former ones are for opening alone: nobody is told to encrypt to them.
            public_jwk(self.encryption_keys[0].private.public_key(), use="enc"),
        ]
        cosigners = [Verifier(each.name, COSIGNATURE, raw(each.private)) for each in self.cosigners]
        logs = [each.verifier for each in (self.log_key, self.log_also) if each is not None]
        return Party(
            agency=self.agency,
            domain=self.domain,
            generation=self.generation,
            jwks=KeySet(keys=tuple(map(PublicKey.model_validate, public))),
            log_keys=tuple(each.vkey() for each in logs),
            cosigner_keys=tuple(each.vkey() for each in cosigners),
            partitions=LanePartitions(**(partitions or {})),
            made_at=made_at or self.changed_at,
            schema_version="party/1.1" if self.retired or self.revoked else "party/1.0",
            retired=self.retired or None,
            revoked=self.revoked or None,
        ).to_bytes()


def _away(folder: Path) -> list[Path]:
    """Return the files of the encryption keys that were put away, the newest first."""
    place = folder / PUT_AWAY
    if not place.is_dir():
        return []
    refuse_open(place)
    return sorted(place.glob("encryption-*.pem"), key=number_of, reverse=True)
