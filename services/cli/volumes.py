"""Prepare what the services of compose.yaml share, so that a fresh clone needs nothing by hand.

Run as `python -m services.cli.volumes` by the one-shot service `init`, which alone sees the volumes
of both agencies. It makes passwords and the bus' access list before the servers start (they wait
for these files), then waits for both databases, migrates them, makes keys, and lets each agency
trust the other's party file. What is there already is kept: every `up` runs it again.

In production each agency does its half itself, with `keys generate`, `party export` and
`party trust`, and a person compares the fingerprints.
"""

import asyncio
import hashlib
import os
import secrets
import sys
from collections.abc import Mapping
from dataclasses import dataclass
from pathlib import Path
from urllib.parse import urlsplit

from schemas.errors import NoticeBusError, UnavailableError
from schemas.party import fingerprint
from services.bus.acl import acl_lines
from services.cli.exits import exit_code_of, say, tell
from services.exchange import parties
from services.exchange.agency import open_agency
from services.keys import KeyRing
from services.ledger.store import Store, migrate
from services.settings import Settings, load

AGENCIES = ("ice", "hhs")
DATABASE_WAIT_SECONDS = 180.0
POLL_SECONDS = 0.5
# A file is for its owner; one that a server reads too is also for that server's group, which it
# has from its folder (set-group-id, see the Dockerfile).
OWN, SERVER = 0o600, 0o640


@dataclass(frozen=True, slots=True)
class Volumes:
    """Where compose mounts the volumes, below one folder, each under its own name."""

    home: Path

    def database_url(self, agency: str) -> Path:
        """The file with an agency's own way into its database."""
        return self.home / agency / "database_url"

    def redis_url(self, agency: str) -> Path:
        """The file with an agency's own way onto the bus."""
        return self.home / agency / "redis_url"


def main() -> int:
    """Prepare the volumes below `NOTICEBUS_HOME`; returns the exit code."""
    volumes = Volumes(Path(os.environ["NOTICEBUS_HOME"]))
    try:
        make_secrets(volumes)
        asyncio.run(introduce(volumes))
    except NoticeBusError as error:
        tell(error)
        return exit_code_of(error)
    say("both agencies are ready and trust each other's party files")
    return 0


def make_secrets(volumes: Volumes) -> None:
    """Make passwords and what the servers read of them; a file that is there is never changed."""
    for agency in AGENCIES:
        database = f"postgresql://{agency}:{_secret()}@{agency}-db:5432/{agency}"
        _keep(volumes.database_url(agency), database)
        _keep(volumes.redis_url(agency), f"redis://{agency}:{_secret()}@redis:6379/0")
        server = volumes.home / f"{agency}-db"
        _keep(server / "superuser", _secret(), mode=SERVER)
        role = role_sql(agency, _password(volumes.database_url(agency)))
        # The server starts when it sees this file, so it comes last.
        _keep(server / "agency.sql", role, mode=SERVER)
    probe = volumes.home / "redis" / "probe"
    _keep(probe, _secret(), mode=SERVER)
    access = access_list(
        {agency: _password(volumes.redis_url(agency)) for agency in AGENCIES},
        probe=probe.read_text(encoding="ascii"),
    )
    # Written every time: a newer version may allow other commands. Redis reads it when it starts.
    _write(volumes.home / "redis" / "users.acl", access, mode=SERVER)


def access_list(passwords: Mapping[str, str], *, probe: str) -> str:
    """Return Redis' ACL file: one user for each agency, one that may only ping, nobody else.

    It holds SHA-256 hashes of the passwords, which are 256 random bits.
    """
    lines = [
        "user default off resetpass resetkeys resetchannels -@all",
        f"user probe on #{_hashed(probe)} resetkeys resetchannels -@all +ping",
        *acl_lines({agency: _hashed(password) for agency, password in passwords.items()}),
    ]
    return "".join(f"{line}\n" for line in lines)


def role_sql(agency: str, password: str) -> str:
    """Return what makes an agency's role, which owns its database and rules nothing else.

    Run once by the database's first start, as its superuser.
    """
    return (
        f"CREATE ROLE {agency} LOGIN PASSWORD '{password}';\n"
        f"CREATE DATABASE {agency} OWNER {agency};\n"
        f"REVOKE ALL ON DATABASE {agency} FROM PUBLIC;\n"
    )


async def introduce(volumes: Volumes) -> None:
    """Migrate both databases, make keys, and let each agency trust the other's party file.

    Raises `UnavailableError` when a database does not answer within three minutes.
    """
    own: dict[str, bytes] = {}
    both = [_settings(volumes, name) for name in AGENCIES]
    for settings in both:
        await _when_it_answers(settings)
        if not settings.keys_folder.exists():
            KeyRing.generate(settings.keys_folder, settings.domain, settings.agency)
        own[settings.agency] = await _own_party(settings)
    for settings in both:
        peer = own[settings.peer]
        async with open_agency(settings) as agency, agency.store.transaction() as tx:
            await parties.trust(
                tx,
                peer,
                peer=settings.peer,
                expected_fingerprint=fingerprint(peer),
                actor="compose init",
            )


async def _when_it_answers(settings: Settings) -> None:
    """Migrate a database, once it has started."""
    url = settings.database_url_required
    async with asyncio.timeout(DATABASE_WAIT_SECONDS):
        while True:
            try:
                store = await Store.open(url)
            except UnavailableError:
                await asyncio.sleep(POLL_SECONDS)
                continue
            await store.close()
            break
    await asyncio.to_thread(migrate, url, settings.agency)


async def _own_party(settings: Settings) -> bytes:
    async with open_agency(settings) as agency, agency.store.transaction() as tx:
        rows = await parties.listed(tx)
    return next(row.party for row in rows if row.agency == settings.agency)


def _settings(volumes: Volumes, agency: str) -> Settings:
    return load(agency, home=volumes.home).model_copy(
        update={
            "database_url": volumes.database_url(agency).read_text(encoding="ascii"),
            "redis_url": volumes.redis_url(agency).read_text(encoding="ascii"),
        }
    )


def _hashed(password: str) -> str:
    return hashlib.sha256(password.encode("ascii")).hexdigest()


def _secret() -> str:
    return secrets.token_urlsafe(32)


def _password(url: Path) -> str:
    return urlsplit(url.read_text(encoding="ascii")).password or ""


def _keep(path: Path, text: str, *, mode: int = OWN) -> None:
    if not path.exists():
        _write(path, text, mode=mode)


def _write(path: Path, text: str, *, mode: int) -> None:
    """Write a file in one step: whoever waits for it never sees half of it."""
    part = path.with_name(f".{path.name}.part")
    part.unlink(missing_ok=True)
    with os.fdopen(os.open(part, os.O_WRONLY | os.O_CREAT | os.O_EXCL, 0o600), "w") as file:
        file.write(text)
        file.flush()
        os.fsync(file.fileno())
    part.chmod(mode)
    part.replace(path)


if __name__ == "__main__":
    sys.exit(main())
