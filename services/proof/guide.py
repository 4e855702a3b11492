"""README.txt of a bundle: what is in it, and every check by hand with tools that are not ours."""

from collections.abc import Mapping
from hashlib import sha256

from schemas.checkpoint import parse_checkpoint
from schemas.cosignature import cosignatures
from schemas.envelope import read
from services.proof.gathering import Gathered
from services.proof.members import About, witnesses_of

_GUIDE = """\
A proof bundle of noticebus
===========================

report.txt and report.pdf say what happened, what this proves and what it does not.
evidence.json of each notice says which files belong together.
conflicts/, where it is there, has what the other agency signed and cannot both be true.

The quick way
-------------
Needs Python 3.9 or newer and openssl 3, and no network:

    python3 verify.py
{fingerprints}
It prints each check. Exit 0: all holds; a line that begins with DISPUTED is of a signature that its
signer would take back. Exit 6: the last line names the file and the reason. Exit 1: it could not be
checked here, and the last line says what is missing (openssl, as a rule).
The fingerprints are the ones in this bundle: put in those that each agency told you itself.
verify.py is a few hundred lines without any library: read it, or do its work by hand.
Its SHA-256 is {program}

By hand: a signature of an envelope (JWS ES256, RFC 7515), with openssl
------------------------------------------------------------------------
The same for manifest.jws, which names every file with its SHA-256, and for {other}.

    FILE={envelope}
    KEY={sign_key}
    printf '%s' "$(cut -d. -f1,2 $FILE)" | openssl dgst -sha256 -binary > digest
    printf '%s==' "$(cut -d. -f3 $FILE)" | tr -- '-_' '+/' | openssl base64 -d -A > raw
    R=$(head -c 32 raw | od -An -v -tx1 | tr -d ' \\n')
    S=$(tail -c 32 raw | od -An -v -tx1 | tr -d ' \\n')
    printf 'asn1=SEQUENCE:s\\n[s]\\nr=INTEGER:0x%s\\ns=INTEGER:0x%s\\n' $R $S > pair
    openssl asn1parse -genconf pair -noout -out signature
    openssl pkeyutl -verify -pubin -inkey $KEY -in digest -sigfile signature -pkeyopt digest:sha256

The key id in the first part of FILE (base64url) is the RFC 7638 thumbprint of the key; the first 16
characters of it are in the key's file name. What was signed, in clear but for its encrypted data:

    cut -d. -f2 $FILE | tr -- '-_' '+/' | openssl base64 -d -A 2>/dev/null | head -c 600

The same with jose (Debian: apt-get install jose):

    jose jws ver -i $FILE -k keys/jwks.json -O-

By hand: a checkpoint (C2SP signed note, Ed25519), with openssl
---------------------------------------------------------------
    NOTE={note}
    KEY={log_key}
    sed '/^$/,$d' $NOTE > text
    sed -n 's|^\u2014 {origin} ||p' $NOTE | head -n 1 > line
    openssl base64 -d -A -in line | tail -c 64 > signature
    openssl pkeyutl -verify -pubin -inkey $KEY -rawin -in text -sigfile signature

{cosignature}By hand: a record in the log (C2SP tlog-proof, RFC 6962)
--------------------------------------------------------
A .tlog file is the index of the record beside it, the hashes up to the root, and the checkpoint.
Its leaf hash is the SHA-256 of a zero byte and the record:

    ( printf '\\000'; cat {record} ) | openssl dgst -sha256

From there each hash in the .tlog file is joined to it by SHA-256 of a byte 1, the left and the
right one, until the root of the checkpoint comes out. With aics-tlog (pip install aics-tlog):

    python3 - {proof} {record} keys/vkeys.txt <<'END'
    import base64, sys, aics_tlog
    text, record = open(sys.argv[1]).read(), open(sys.argv[2], "rb").read()
    head, _, note = text.partition("\\n\\n")
    lines = head.split("\\n")[1:]
    index, path = int(lines[0].split()[1]), [base64.b64decode(line) for line in lines[1:]]
    point, signed = aics_tlog.checkpoint_from_note(note.encode())
    vkeys = open(sys.argv[3]).read().split()
    keys = [aics_tlog.parse_vkey(v) for v in vkeys if v.startswith(point.origin + "+")]
    signers = [aics_tlog.verify_checkpoint(signed, k, expected_origin=k.name) for k in keys]
    assert any(signer.log_ok for signer in signers)
    assert aics_tlog.verify_leaf_inclusion(record, index, point.size, path, point.root_hash)
    print("record", index, "is in the log", point.origin)
    END
"""

_COSIGNATURE = """\
By hand: a cosignature, and when it was given (C2SP tlog-cosignature, Ed25519), with openssl
---------------------------------------------------------------------------------------------
A line below a checkpoint: four bytes that name the key, eight of seconds after 1970, and the
signature over these seconds and the text of the checkpoint. KEY is of {name}.

    NOTE={note}
    KEY={key}
    sed -n 's|^\u2014 {name} ||p' $NOTE | head -n 1 > line
    openssl base64 -d -A -in line > raw
    AT=$(printf '%d' 0x$(tail -c +5 raw | head -c 8 | od -An -v -tx1 | tr -d ' \\n'))
    ( printf 'cosignature/v1\\ntime %d\\n' $AT; sed '/^$/,$d' $NOTE ) > text
    tail -c 64 raw > signature
    openssl pkeyutl -verify -pubin -inkey $KEY -rawin -in text -sigfile signature
    date -u -d @$AT

The key's vkey is in keys/vkeys.txt; its owner can tell whether it is his.

"""
_NOT_COSIGNED = """\
No checkpoint in here is cosigned: nobody but the log's keeper says when it was there.

"""


def guide(gathered: Gathered, about: About, members: Mapping[str, bytes]) -> bytes:
    """Return the text, with file names of this bundle in its commands."""
    by_hand = {
        "envelope": _first(members, "notices/", ".jws"),
        "other": _first(members, "notices/", ".refusal.jws") or "every other .jws file",
        "record": _first(members, "notices/", ".json", also="/records/"),
        "proof": _first(members, "notices/", ".tlog", also="/records/"),
        "note": f"checkpoints/{about.agency}-{gathered.origin.rpartition('/')[2]}"
        f"-{gathered.size:012d}.note",
        "log_key": f"keys/{about.agency}-log-{_first_signer(gathered.note)}.pem",
        "sign_key": _signer(members),
        "origin": gathered.origin,
        "cosignature": _cosignature(gathered, members),
        "program": sha256(members["verify.py"]).hexdigest(),
    }
    fingerprints = "".join(
        f"    python3 verify.py --fingerprint {row.agency}={row.fingerprint}\n"
        for row in gathered.parties
        if row.status == "current"
    )
    return _GUIDE.format(fingerprints=fingerprints, **by_hand).encode()


def _cosignature(gathered: Gathered, members: Mapping[str, bytes]) -> str:
    """Return how to check the newest cosignature in the bundle, of our own log if there is one."""
    for name in _cosigned_names(gathered, members):
        note = members[name].decode()
        for verifier, member in witnesses_of(gathered).items():
            if cosignatures(note, [verifier]):
                return _COSIGNATURE.format(note=name, key=member, name=verifier.name)
    return _NOT_COSIGNED


def _cosigned_names(gathered: Gathered, members: Mapping[str, bytes]) -> list[str]:
    """Return the checkpoints of a bundle, those of our own log first, each the newest first."""
    names = sorted((name for name in members if name.startswith("checkpoints/")), reverse=True)
    return sorted(names, key=lambda name: not members[name].startswith(gathered.origin.encode()))


def _first_signer(note: str) -> str:
    """Return the id of the key whose signature stands first under a checkpoint."""
    return parse_checkpoint(note).signatures[0].key_id.hex()


def _signer(members: Mapping[str, bytes]) -> str:
    """Return the file of the key that signed the first envelope."""
    first = _first(members, "notices/", ".jws")
    kid = read(members[first]).kid if first else ""
    return _first(members, "keys/", f"-sign-{kid[:16]}.pem")


def _first(members: Mapping[str, bytes], begins: str, ends: str, *, also: str = "") -> str:
    found = [
        name for name in members if name.startswith(begins) and name.endswith(ends) and also in name
    ]
    return min(found, default="")
