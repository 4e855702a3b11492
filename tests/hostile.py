"""Entries that somebody made to hurt, from a genuine one: each class with what is kept of it.

Most are signed with the sender's own key, because that is the harder case: a sender who went bad,
or whose key was taken.
"""

from collections.abc import Callable, Mapping
from dataclasses import dataclass, replace
from typing import Any

from cryptography.hazmat.primitives.asymmetric import ec
from uuid_utils.compat import uuid7

from schemas import jose
from schemas.canonical import b64_bytes, canonical, parse, unb64
from schemas.envelope import MESSAGE_BYTES_MAX, SigningKey, commitment, seal
from schemas.envelope import read as read_envelope
from services.exchange.agency import Agency
from tests.agencies import a_notice, value
from tests.vectors.make import ORDER

TYP = "cloudevents+jws"
STRANGER = SigningKey.of(ec.generate_private_key(ec.SECP256R1()))


@dataclass(frozen=True, slots=True)
class Genuine:
    """A message that its recipient has taken, and both agencies' keys."""

    sender: Agency
    recipient: Agency
    jws: bytes

    def signed(self, payload: bytes, key: SigningKey | None = None) -> bytes:
        """Sign any payload, with the sender's own key unless another is given."""
        return jose.sign_jws(payload, key or self.sender.ring.signing, TYP)

    def changed(self, **members: Any) -> bytes:
        """Return the payload under an id of its own, with anything in it changed."""
        said = parse(unb64(self.jws.split(b".")[1]))
        return canonical(said | {"id": str(uuid7())} | members)


@dataclass(frozen=True, slots=True)
class Hostile:
    """A class of them: `make` gives one, other bytes each time where bytes can differ.

    `cause` is the code that it is kept under as a dead letter in state `kept`; None if it is taken
    for what it is, the genuine message once more. `authentic` ones were signed by their sender.
    """

    make: Callable[[Genuine], bytes]
    cause: str | None
    kept: str = "refused"
    authentic: bool = False


def _twin(genuine: Genuine) -> bytes:
    """Turn (r, s) into (r, n - s), which verifies as well."""
    signing_input, _, encoded = genuine.jws.rpartition(b".")
    raw = unb64(encoded)
    twin_s = (ORDER - int.from_bytes(raw[32:], "big")).to_bytes(32, "big")
    return signing_input + b"." + b64_bytes(raw[:32] + twin_s)


def _under_header(genuine: Genuine, **members: Any) -> bytes:
    signed = genuine.signed(genuine.changed())
    header, payload, signature = signed.split(b".")
    return b".".join((b64_bytes(canonical(parse(unb64(header)) | members)), payload, signature))


def _other_content(genuine: Genuine) -> bytes:
    """Say something else under the genuine message's own id and sequence."""
    attributes = read_envelope(genuine.jws).claims
    assert attributes is not None
    salt, body = bytes(32), a_notice(attributes.subject).body
    return seal(
        replace(attributes, commitment=commitment(salt, body)),
        data=body,
        signing=genuine.sender.ring.signing,
        encrypt_to=genuine.sender.directory.encrypt_to,
        salt=salt,
    )


def _cut(genuine: Genuine) -> bytes:
    signed = genuine.signed(genuine.changed())
    return signed[: -len(signed) // 3]


def _under_our_kid(genuine: Genuine) -> bytes:
    stranger = replace(STRANGER, kid=genuine.sender.ring.signing.kid)
    return genuine.signed(genuine.changed(), stranger)


HOSTILE: Mapping[str, Hostile] = {
    "nothing at all": Hostile(lambda _: b"", "NB-2002"),
    "not UTF-8": Hostile(lambda _: b"\xff\xfe" + uuid7().hex.encode(), "NB-2002"),
    "payload not UTF-8": Hostile(
        lambda g: g.signed(b'{"id":"\xff%b"}' % str(uuid7()).encode()), "NB-2004"
    ),
    "deep JSON": Hostile(
        lambda g: g.signed(b'["%b",' % str(uuid7()).encode() + b"[" * 100_000), "NB-2004"
    ),
    "oversized": Hostile(lambda _: uuid7().hex.encode() + b"." * MESSAGE_BYTES_MAX, "NB-2001"),
    "not signed": Hostile(lambda g: g.changed(), "NB-2002"),
    "empty signature": Hostile(
        lambda g: g.signed(g.changed()).rpartition(b".")[0] + b".", "NB-2011"
    ),
    "truncated": Hostile(_cut, "NB-2002"),
    "twin signature": Hostile(_twin, None),
    "foreign key": Hostile(lambda g: g.signed(g.changed(), STRANGER), "NB-2010", kept="open"),
    "foreign key under a trusted name": Hostile(_under_our_kid, "NB-2011"),
    # A recipient never signs what it receives, so its own key is as unknown as any.
    "the recipient's own key": Hostile(
        lambda g: g.signed(g.changed(), g.recipient.ring.signing), "NB-2010", kept="open"
    ),
    "for another recipient": Hostile(lambda g: g.signed(g.changed(recipient="ice")), "NB-2013"),
    "of another lane": Hostile(lambda g: g.signed(g.changed(lane="backlog")), "NB-2014"),
    "of another partition": Hostile(lambda g: g.signed(g.changed(partition=1)), "NB-2014"),
    "another algorithm in the header": Hostile(lambda g: _under_header(g, alg="none"), "NB-2005"),
    "one member more in the header": Hostile(lambda g: _under_header(g, zip="DEF"), "NB-2005"),
    "an attribute that nobody knows": Hostile(lambda g: g.signed(g.changed(also=1)), "NB-2006"),
    "other content under a known id": Hostile(_other_content, "NB-2151", authentic=True),
}


async def envelope_of(agency: Agency, message_id: object) -> bytes:
    """Return the exact bytes of a message that an agency sent."""
    query = "SELECT envelope FROM envelope WHERE message_id = %s"
    found = await value(agency, query, message_id)
    assert isinstance(found, bytes)
    return found
