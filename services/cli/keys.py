"""Make, show and rotate our keys; private halves never leave their folder."""

from enum import StrEnum
from pathlib import Path
from typing import TYPE_CHECKING, Annotated

import typer

from schemas.cosignature import cosigner
from schemas.errors import ConflictError, RejectedError
from services.cli.asking import bytes_of
from services.cli.everywhere import noun
from services.cli.output import Column
from services.cli.report import SinceOption, moment
from services.cli.session import Session, session_of

if TYPE_CHECKING:
    from services.exchange.agency import Agency
    from services.keys import KeyRing

app = noun("Make, show and rotate our keys.")

NEXT = "  next: noticebus party export FILE, and at the other agency noticebus party trust FILE"
SIGNS, NOTES = "ES256, P-256", "Ed25519"
BESIDE = "signs beside the newest"
COLUMNS = [Column("use"), Column("algorithm"), Column("key_id", "KEY"), Column("state")]


@app.command()
def generate(ctx: typer.Context) -> None:
    """Make the keys of our agency; where some are already, nothing is touched."""
    from services.keys import KeyRing

    session = session_of(ctx)
    settings = session.settings
    ring = KeyRing.generate(settings.keys_folder, settings.domain, settings.agency)
    _emit(session, ring, "keys.generate")
    session.remark(f"keys of {settings.agency} in {settings.keys_folder}; back them up")


@app.command()
def show(ctx: typer.Context) -> None:
    """List our keys by their public names."""
    from services.keys import KeyRing

    session = session_of(ctx)
    _emit(session, KeyRing.load(session.settings.keys_folder), "keys.list")


FinishOption = Annotated[
    bool,
    typer.Option(
        "--finish",
        help="Log or cosigner: let the new key sign alone. Encryption: put former keys away.",
    ),
]


class Use(StrEnum):
    """What a key is for, and can be renewed for."""

    SIGNING = "signing"
    ENCRYPTION = "encryption"
    LOG = "log"
    COSIGNER = "cosigner"


@app.command()
def rotate(
    ctx: typer.Context,
    use: Annotated[Use, typer.Argument(help="Which key to renew.")] = Use.SIGNING,
    *,
    finish: FinishOption = False,
) -> None:
    """Renew a key: what signs messages, what others encrypt to, the log's, or the cosigner's.

    The old signing key ends at the last sequence of each stream, which old and new key both sign:
    up to there its messages are taken, later ones never. The other agency refuses what the new key
    signs until it trusts our new party file, and takes the same messages once it does. A new log or
    cosigner key signs beside the one before it until --finish, for which the other agency has to
    trust our new file. Former encryption keys stay, for opening alone, until --finish: then they
    open no message any more, only backups and archives. It is refused while one may be needed.
    Example: noticebus --agency hhs keys rotate encryption
    """
    from services.exchange import rotation

    session = session_of(ctx)
    what = {
        Use.SIGNING: "Sign with a new key from now on?",
        Use.ENCRYPTION: "Have messages encrypted to a new key from now on?",
        Use.LOG: "Sign checkpoints with a new key as well from now on?",
        Use.COSIGNER: "Cosign with a new key as well from now on?",
    }
    if finish and use is Use.ENCRYPTION:
        _put_away(session)
        return
    if finish:
        if use is Use.SIGNING:
            raise RejectedError("NB-7050", use=use)
        session.confirm("Does the other agency trust our newest party file?", unattended=True)
    else:
        session.confirm(what[use], unattended=True)

    async def work(agency: "Agency") -> "KeyRing":
        match use:
            case Use.SIGNING:
                await rotation.rotate_signing_key(agency, actor=session.actor)
            case Use.ENCRYPTION:
                await rotation.rotate_encryption_key(agency, actor=session.actor)
            case Use.LOG | Use.COSIGNER:
                await rotation.rotate_note_key(
                    agency, use.value, finish=finish, actor=session.actor
                )
        return agency.ring

    _emit(session, session.with_agency(work), "keys.rotate")
    session.remark(NEXT)


def _put_away(session: Session) -> None:
    """Put former encryption keys away that nothing needs any more, and say which stay and why.

    Raises `ConflictError` NB-3253 without any, NB-3252 where all may still be needed.
    """
    from services.exchange import retiring
    from services.keys import PUT_AWAY

    former = session.with_agency(retiring.former_keys, bus=True)
    if not former:
        raise ConflictError("NB-3253")
    ready = [each for each in former if not each.needed]
    if not ready:
        raise ConflictError("NB-3252", kid=former[0].kid, why=", ".join(former[0].needed))
    unheard = sorted({stream for each in ready for stream in each.unheard})
    if unheard:
        session.remark(f"  nothing under a newer key came on {', '.join(unheard)} yet")
        session.confirm("Does `noticebus doctor` there say that nothing waits under a former key?")
    else:
        session.confirm("Put away the keys that nothing is encrypted to?", unattended=True)
    kids = [each.kid for each in ready]

    async def work(agency: "Agency") -> "KeyRing":
        await retiring.put_away(agency, kids, actor=session.actor)
        return agency.ring

    _emit(session, session.with_agency(work, bus=True), "keys.rotate")
    place = session.settings.keys_folder / PUT_AWAY
    for each in ready:
        session.remark(
            f"  {each.kid[:12]} is in {place}: it opens backups and archives from before"
            f" {each.replaced_at:%Y-%m-%d %H:%M:%SZ}; keep it, there or elsewhere, as long as those"
        )
    for each in former:
        if each.needed:
            session.remark(f"  {each.kid[:12]} stays: {', '.join(each.needed)}")


@app.command()
def revoke(
    ctx: typer.Context,
    reason: Annotated[str, typer.Option(help="Why; it is in the record.")],
    kid: Annotated[
        str | None,
        typer.Argument(metavar="KEY", help="Its id or the beginning of it; else the one in use."),
    ] = None,
    since: SinceOption = None,
) -> None:
    """Distrust a signing key that others may have; where it is the one in use, a new one signs.

    The other agency refuses all that the key signed once it trusts our new party file: hand that
    over at once, by another way than the bus. What is not answered yet goes again under new ids.
    --since is when others may first have had the key (else now), and never before it was made. As
    evidence it counts for what the other agency had cosigned before that; what we cosigned of its
    log ourselves, before it learns of this, it still holds against us, as disputed.
    Example: noticebus --agency ice keys revoke --since 2026-11-20 --reason "laptop stolen"
    """
    from services.exchange import rotation
    from services.exchange.renewing import Renewed

    session = session_of(ctx)
    at = moment(since)
    session.confirm("Refuse everything that this key signed, from now on?", unattended=True)

    async def work(agency: "Agency") -> "tuple[KeyRing, Renewed]":
        done = await rotation.revoke_signing_key(
            agency, kid, since=at, actor=session.actor, reason=reason
        )
        return agency.ring, done

    ring, done = session.with_agency(work)
    _emit(session, ring, "keys.revoke")
    session.remark(
        f"  {done.messages:,} unanswered messages go again under new ids, with {done.control:,}"
        " control messages",
        NEXT,
    )


@app.command()
def index(
    ctx: typer.Context,
    *,
    seal: Annotated[
        Path | None,
        typer.Option(metavar="FILE", help="Write our key for the other agency, made if need be."),
    ] = None,
    take: Annotated[
        Path | None,
        typer.Option(metavar="FILE", help="Keep the key that the other agency sealed for us."),
    ] = None,
) -> None:
    """Share the index key, under which notices bear a tag of their case (see proof absence).

    One side seals it, the other takes it; then both print the same hash. Whoever holds this key can
    test any child against all tags: keep it as closely as the signing key. Example: noticebus
    --agency ice keys index --seal index.sealed
    """
    from services.backup.files import new_file
    from services.exchange import indexing

    session = session_of(ctx)
    if seal is not None and take is not None:
        raise session.misused("--seal and --take are two sides of one thing")

    async def work(agency: "Agency") -> "tuple[KeyRing, bytes]":
        sealed = b""
        if seal is not None:
            sealed = await indexing.seal_index_key(agency, actor=session.actor)
        elif take is not None:
            await indexing.take_index_key(agency, bytes_of(take), actor=session.actor)
        return agency.ring, sealed

    if seal is None:
        ring, _ = session.with_agency(work)
    else:
        with new_file(seal) as file:
            ring, sealed = session.with_agency(work)
            file.write(sealed)
    found = None if ring.index_key is None else _named(ring.index_key)
    session.emit_one(
        {"index": found, "file": None if seal is None else str(seal)},
        schema="keys.index",
        people=[f"index key {found}" if found else "no index key: notices bear no tags"],
    )
    if seal is not None:
        session.remark(f"  next: hand over {seal}; there: noticebus keys index --take FILE")


def _emit(session: Session, ring: "KeyRing", schema: str) -> None:
    rows: list[dict[str, object]] = []

    def add(use: str, algorithm: str, key_id: str, state: str) -> None:
        rows.append({"use": use, "algorithm": algorithm, "key_id": key_id, "state": state})

    if ring.prepared is not None:
        add("signing", SIGNS, ring.prepared.kid, "prepared")
    for key in ring.signing_keys:
        add("signing", SIGNS, key.kid, _state(ring, key.kid))
    for at, opens in enumerate(ring.encryption_keys):
        state = "decrypt only" if at else "in use"
        add("encryption", "ECDH-ES, P-256", opens.kid, state)
    for away in ring.put_away_keys():
        add("encryption", "ECDH-ES, P-256", away.kid, "put away, for files")
    add("log", NOTES, ring.log_key.verifier.vkey(), "in use")
    if ring.log_also is not None:
        add("log", NOTES, ring.log_also.verifier.vkey(), BESIDE)
    for former in ring.log_former:
        add("log", NOTES, former.vkey(), "former")
    for at, each in enumerate(ring.cosigners):
        add("cosigner", NOTES, cosigner(each).vkey(), BESIDE if at else "in use")
    if ring.index_key is not None:
        add("index", "HMAC-SHA-256", _named(ring.index_key), "in use")
    session.emit(rows, schema=schema, columns=COLUMNS, empty="")


def _named(index_key: bytes) -> str:
    """Return the hash that both ledgers name an index key by."""
    from schemas.canonical import b64
    from schemas.casetag import index_key_hash

    return b64(index_key_hash(index_key))


def _state(ring: "KeyRing", kid: str) -> str:
    if kid in {each.kid for each in ring.revoked}:
        return "revoked"
    if kid in {each.kid for each in ring.retired}:
        return "retired"
    return "in use" if kid == ring.signing.kid else "older"
