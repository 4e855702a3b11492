"""What compose's `init` puts into the volumes before any server starts."""

import hashlib
import stat
from pathlib import Path
from urllib.parse import urlsplit

import pytest

from services.cli.volumes import AGENCIES, Volumes, make_secrets


@pytest.fixture
def volumes(tmp_path: Path) -> Volumes:
    for name in (*AGENCIES, "redis", "ice-db", "hhs-db"):
        (tmp_path / name).mkdir()
    return Volumes(tmp_path)


def contents(volumes: Volumes) -> dict[Path, str]:
    return {path: path.read_text() for path in volumes.home.rglob("*") if path.is_file()}


def test_running_it_again_changes_nothing(volumes: Volumes) -> None:
    make_secrets(volumes)
    first = contents(volumes)

    make_secrets(volumes)

    assert contents(volumes) == first


def test_interrupted_run_is_completed_with_the_secrets_that_are_there(volumes: Volumes) -> None:
    make_secrets(volumes)
    first = contents(volumes)
    for name in ("ice-db/agency.sql", "redis/users.acl", "redis/probe"):
        (volumes.home / name).unlink()

    make_secrets(volumes)

    again = contents(volumes)
    assert again.keys() == first.keys()
    kept = volumes.home / "ice-db/agency.sql"
    assert again[kept] == first[kept]


def test_every_secret_is_different(volumes: Volumes) -> None:
    make_secrets(volumes)

    found = [urlsplit(text).password for text in contents(volumes).values() if "://" in text]
    found += [(volumes.home / name / "superuser").read_text() for name in ("ice-db", "hhs-db")]
    found.append((volumes.home / "redis/probe").read_text())

    assert len(found) == len(set(found)) == 7
    assert all(len(secret or "") >= 43 for secret in found)


def test_files_are_open_to_their_owner_and_their_server_alone(volumes: Volumes) -> None:
    make_secrets(volumes)

    modes = {
        str(path.relative_to(volumes.home)): stat.S_IMODE(path.stat().st_mode)
        for path in contents(volumes)
    }

    assert modes == {
        "ice/database_url": 0o600,
        "ice/redis_url": 0o600,
        "hhs/database_url": 0o600,
        "hhs/redis_url": 0o600,
        "ice-db/superuser": 0o640,
        "ice-db/agency.sql": 0o640,
        "hhs-db/superuser": 0o640,
        "hhs-db/agency.sql": 0o640,
        "redis/probe": 0o640,
        "redis/users.acl": 0o640,
    }


def test_access_list_holds_hashes_and_nobody_unnamed(volumes: Volumes) -> None:
    make_secrets(volumes)
    lines = (volumes.home / "redis/users.acl").read_text().splitlines()
    password = urlsplit(volumes.redis_url("hhs").read_text()).password or ""

    assert [line.split()[1:3] for line in lines] == [
        ["default", "off"],
        ["probe", "on"],
        ["ice", "on"],
        ["hhs", "on"],
    ]
    assert f"#{hashlib.sha256(password.encode()).hexdigest()}" in lines[3]
    assert password not in "\n".join(lines)
