"""The party file: the public half of an agency, which the other side trusts by its fingerprint.

It holds signing and encryption keys (JWKS), the keys of ledger and cosigner (vkeys), which signing
keys ended and where, and into how many streams each lane is split. Its bytes are canonical JSON;
people compare the fingerprint over another way (a call, a meeting) before they trust it. Nothing in
it is secret.
"""

from hashlib import sha256
from typing import Annotated, ClassVar, Literal, Self

from pydantic import Field, StringConstraints, ValidationError, model_validator

from schemas.canonical import canonical, parse
from schemas.checkpoint import COSIGNATURE, ED25519, Verifier
from schemas.ending import Ending, Retirement, Revocation
from schemas.envelope import source_of
from schemas.errors import EvidenceError, RejectedError
from schemas.fields import Body, Hash, Ordinal, Time, broken
from schemas.jose import PublicEncryptionKey, VerifyKey, public_key_of, thumbprint

PARTY_BYTES_MAX = 65_536
KEYS_MAX = 32
PARTITIONS_MAX = 64

Vkeys = Annotated[
    tuple[Annotated[str, StringConstraints(min_length=1, max_length=512)], ...],
    Field(max_length=KEYS_MAX, strict=False),
]
Partitions = Annotated[int, Field(ge=1, le=PARTITIONS_MAX)]
Retirements = Annotated[
    tuple[Retirement, ...], Field(min_length=1, max_length=KEYS_MAX, strict=False)
]
Revocations = Annotated[
    tuple[Revocation, ...], Field(min_length=1, max_length=KEYS_MAX, strict=False)
]


class PublicKey(Body):
    """One P-256 key of a party as a JWK; `kid` is its RFC 7638 thumbprint."""

    crv: Literal["P-256"] = "P-256"
    kid: Hash
    kty: Literal["EC"] = "EC"
    use: Literal["sig", "enc"]
    x: Hash
    y: Hash

    @model_validator(mode="after")
    def _is_a_key(self) -> Self:
        try:
            public = public_key_of(self.model_dump())
        except ValueError:
            raise broken("x", "is not a point of P-256") from None
        if thumbprint(public) != self.kid:
            raise broken("kid", "is not the thumbprint of this key")
        return self


class KeySet(Body):
    """A JWKS (RFC 7517): signing keys, and encryption keys of which the first is used."""

    keys: Annotated[tuple[PublicKey, ...], Field(min_length=1, max_length=KEYS_MAX, strict=False)]


class LanePartitions(Body):
    """Into how many streams a lane to this party's peer is split; control never is."""

    live: Partitions = 1
    backlog: Partitions = 1


class Party(Body):
    """What one agency shows the other about itself.

    From party/1.1 on it also says which of its signing keys ended, and how; a file in which none
    did is still a party/1.0, in the same bytes.
    """

    versions: ClassVar[tuple[str, ...]] = ("party/1.0", "party/1.1")

    schema_version: Literal["party/1.0", "party/1.1"] = "party/1.0"
    agency: Annotated[str, StringConstraints(pattern=r"^[a-z0-9-]{1,32}$")]
    domain: Annotated[str, StringConstraints(pattern=r"^[a-z0-9][a-z0-9.-]{0,119}$")]
    generation: Ordinal
    jwks: KeySet
    log_keys: Vkeys
    cosigner_keys: Vkeys = ()
    partitions: LanePartitions = LanePartitions()
    made_at: Time
    retired: Retirements | None = None
    revoked: Revocations | None = None

    @model_validator(mode="after")
    def _holds_together(self) -> Self:
        uses = [key.use for key in self.jwks.keys]
        kids = {key.kid for key in self.jwks.keys}
        if "sig" not in uses or "enc" not in uses:
            raise broken("jwks", "needs a key for signing and one for encryption")
        if len(kids) != len(self.jwks.keys):
            raise broken("jwks", "holds a key twice; each key has one use")
        if not self.log_keys:
            raise broken("log_keys", "needs a key")
        for text in self.log_keys:
            verifier = _vkey(text, ED25519, "log_keys")
            if not verifier.name.startswith(f"{self.origin_stem}/"):
                raise broken("log_keys", "has a key whose name is not this party's")
        for text in self.cosigner_keys:
            _vkey(text, COSIGNATURE, "cosigner_keys")
        ended = self.retired is not None or self.revoked is not None
        if ended != (self.schema_version != "party/1.0"):
            raise broken("schema_version", "is party/1.1 where keys ended, and only there")
        keys = self.verify_keys()
        if not all(each.verify(keys) for each in self.retired or ()):
            raise broken("retired", "holds an end that old and new key did not both sign")
        if not {each.kid for each in self.revoked or ()} <= keys.keys():
            raise broken("revoked", "names a key that is not in here")
        if self.signing_keys() == ():
            raise broken("jwks", "needs a key for signing that has not ended")
        return self

    @classmethod
    def from_bytes(cls, file: bytes) -> Self:
        """Read a party file. Raises `RejectedError` NB-4020 with `field` and `rule`."""
        if len(file) > PARTY_BYTES_MAX:
            raise RejectedError("NB-4020", field="(file)", rule="is too large")
        try:
            parse(file)
            return cls.model_validate_json(file)
        except RejectedError as error:
            raise RejectedError(
                "NB-4020", field="(file)", rule=f"is not canonical JSON: {error.where.get('rule')}"
            ) from None
        except ValidationError as error:
            fault = error.errors(include_url=False, include_input=False)[0]
            field = ".".join(str(part) for part in fault["loc"]) or "(file)"
            raise RejectedError("NB-4020", field=field, rule=fault["msg"]) from None

    def to_bytes(self) -> bytes:
        """Return the party file: canonical JSON."""
        return canonical(self.model_dump(mode="json", exclude_none=True))

    @property
    def source(self) -> str:
        """What stands as `source` in this party's envelopes."""
        return source_of(self.domain, self.agency)

    @property
    def origin_stem(self) -> str:
        """What the names of this party's log keys begin with; the generation follows."""
        return f"{self.domain}/noticebus/{self.agency}"

    def verify_keys(self) -> dict[str, VerifyKey]:
        """Return the keys this party signs envelopes with, by `kid`."""
        return {
            key.kid: VerifyKey(key.kid, public_key_of(key.model_dump()), self.source)
            for key in self.jwks.keys
            if key.use == "sig"
        }

    def signing_keys(self) -> tuple[str, ...]:
        """Return the ids of the keys that may sign further messages: those without an end."""
        endings = self.endings()
        return tuple(
            key.kid for key in self.jwks.keys if key.use == "sig" and key.kid not in endings
        )

    def endings(self) -> dict[str, Ending]:
        """Return how signing keys of this party ended, by `kid`."""
        found = {each.kid: Ending(retired=each) for each in self.retired or ()}
        for each in self.revoked or ():
            found[each.kid] = Ending(revoked=each).or_earlier(found.get(each.kid))
        return found

    def encryption_key(self) -> PublicEncryptionKey:
        """Return the key to encrypt to: the first one for that use."""
        key = next(key for key in self.jwks.keys if key.use == "enc")
        return PublicEncryptionKey(key.kid, public_key_of(key.model_dump()))

    def log_verifiers(self) -> tuple[Verifier, ...]:
        """Return the keys that sign this party's checkpoints."""
        return tuple(Verifier.parse(text) for text in self.log_keys)

    def cosigners(self) -> tuple[Verifier, ...]:
        """Return the keys by which this party witnesses others' checkpoints."""
        return tuple(Verifier.parse(text) for text in self.cosigner_keys)


def fingerprint(file: bytes) -> str:
    """Return what people compare before they trust a party file: `sha256:` and 64 hex digits."""
    return f"sha256:{sha256(file).hexdigest()}"


def _vkey(text: str, algorithm: int, field: str) -> Verifier:
    try:
        verifier = Verifier.parse(text)
    except EvidenceError:
        raise broken(field, "holds text that is not a vkey") from None
    if verifier.algorithm != algorithm:
        raise broken(field, "holds a key of another signature type")
    return verifier
