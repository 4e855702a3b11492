"""The real services in containers: what `docker compose up --build --wait` brings, and bears.

The tests share one deployment and run in the order they stand here; each leaves it healthy.
"""

import json
import re
import threading
from collections.abc import Iterator
from contextlib import contextmanager
from urllib.parse import urlsplit

import pytest

from tests.compose.deployment import SENDERS, Deployment, Docket

LIVING = ("redis", "ice-db", "hhs-db", "ice-producer", "hhs-consumer")
SETTLED = {"receipted", "acknowledged", "closed", "to_confirm", "dismissed", "withdrawn"}


def settled(deployment: Deployment) -> bool:
    return set(deployment.states()) <= SETTLED


def test_fresh_clone_comes_up_healthy_with_nothing_prepared(deployment: Deployment) -> None:
    assert sorted(deployment.services()) == sorted(LIVING)
    assert all(deployment.healthy(service) for service in LIVING)
    assert deployment.inspect("init")["State"]["ExitCode"] == 0


@pytest.mark.parametrize("service", [*LIVING, "init"])
def test_container_is_hardened(deployment: Deployment, service: str) -> None:
    about = deployment.inspect(service)
    host = about["HostConfig"]

    assert host["ReadonlyRootfs"]
    assert host["CapDrop"] == ["ALL"]
    assert not host["CapAdd"]
    assert not host["Privileged"]
    assert "no-new-privileges:true" in host["SecurityOpt"]
    assert not host["PortBindings"]
    assert about["Config"]["User"] not in {"", "0", "root"}
    assert host["RestartPolicy"]["Name"] == ("no" if service == "init" else "unless-stopped")


@pytest.mark.parametrize("service", LIVING)
def test_no_process_runs_as_root(deployment: Deployment, service: str) -> None:
    listed = deployment.docker("top", deployment.container(service), "-eo", "uid,pid,args")

    users = [line.split()[0] for line in listed.splitlines()[1:]]
    assert users
    assert "0" not in users


def test_secrets_are_in_volumes_alone(deployment: Deployment) -> None:
    secrets = [
        urlsplit(deployment.inside(service, "cat", f"/var/lib/noticebus/{agency}/{name}")).password
        for agency, service in SENDERS.items()
        for name in ("database_url", "redis_url")
    ]
    seen = "".join(json.dumps(deployment.inspect(service)) for service in (*LIVING, "init"))
    seen += deployment.docker("history", "--no-trunc", deployment.inspect("init")["Image"])
    seen += deployment.compose("logs", "--no-color")

    assert all(secrets)
    assert not [secret for secret in secrets if secret and secret in seen]


def test_each_server_reads_its_own_secrets_alone(deployment: Deployment) -> None:
    mounts = {
        service: {
            mount["Name"].removeprefix(f"{deployment.project}_")
            for mount in deployment.inspect(service)["Mounts"]
            if mount["Type"] == "volume"
        }
        for service in LIVING
    }

    assert mounts == {
        "redis": {"redis-access", "redis-data"},
        "ice-db": {"ice-db-access", "ice-db-data", "ice-db-socket"},
        "hhs-db": {"hhs-db-access", "hhs-db-data", "hhs-db-socket"},
        "ice-producer": {"ice"},
        "hhs-consumer": {"hhs"},
    }


@pytest.mark.parametrize(
    ("service", "hidden"), [("ice-producer", "hhs-db"), ("hhs-consumer", "ice-db")]
)
def test_agency_cannot_reach_the_others_database(
    deployment: Deployment, service: str, hidden: str
) -> None:
    ask = f"import socket; socket.create_connection(('{hidden}', 5432), 3)"

    deployment.inside(service, "python", "-c", ask, allowed=(1,))


def test_agency_rules_nothing_but_its_own_database(deployment: Deployment) -> None:
    ask = (
        "SELECT count(*) FROM pg_roles WHERE rolname IN ('ice', 'hhs') AND NOT"
        " (rolsuper OR rolcreaterole OR rolcreatedb OR rolreplication OR rolbypassrls)"
    )

    for agency in SENDERS:
        psql = ("psql", "--username=postgres", "--tuples-only", "--no-align", "--command", ask)
        assert deployment.inside(f"{agency}-db", *psql).strip() == "1"


def test_bus_keeps_every_write(deployment: Deployment) -> None:
    running = " ".join(deployment.inspect("redis")["Config"]["Entrypoint"])

    assert "--appendonly yes --appendfsync always" in running
    assert "noeviction" in running


def redis(deployment: Deployment, agency: str, *command: str) -> str:
    """Send one command to the bus as an agency's user, and return the answer."""
    url = deployment.inside(SENDERS[agency], "cat", f"/var/lib/noticebus/{agency}/redis_url")
    login = ("-e", f"REDISCLI_AUTH={urlsplit(url).password}")
    return deployment.compose(
        "exec", "-T", *login, "redis", "redis-cli", "--user", agency, *command, allowed=(0, 1)
    )


@pytest.mark.parametrize(
    ("agency", "command"),
    [
        # Writing what the other one says, taking what the other one is to read.
        ("ice", "XADD {hhs.ice.live.0}:out * jws x"),
        ("hhs", "XADD {ice.hhs.live.0}:out * jws x"),
        ("ice", "XTRIM {hhs.ice.control.0}:out MAXLEN 0"),
        ("hhs", "XTRIM {ice.hhs.backlog.0}:out MAXLEN 0"),
        ("ice", "XREADGROUP GROUP hhs x COUNT 1 STREAMS {ice.hhs.live.0}:out >"),
        ("hhs", "XREADGROUP GROUP ice x COUNT 1 STREAMS {hhs.ice.live.0}:out >"),
        ("hhs", "DEL {ice.hhs.live.0}:out"),
        # Anything else at all.
        ("ice", "SET x y"),
        ("ice", "GET x"),
        ("hhs", "KEYS *"),
        ("hhs", "FLUSHALL"),
        ("ice", "CONFIG GET *"),
        ("hhs", "ACL LIST"),
        ("ice", "SHUTDOWN NOSAVE"),
        ("ice", "EVAL return(1) 0"),
        ("hhs", "SUBSCRIBE x"),
        ("hhs", "MONITOR"),
    ],
)
def test_bus_refuses_what_an_agency_need_not_do(
    deployment: Deployment, agency: str, command: str
) -> None:
    assert "NOPERM" in redis(deployment, agency, *command.split())


def test_bus_refuses_strangers(deployment: Deployment) -> None:
    answer = deployment.inside("redis", "redis-cli", "PING", allowed=(0, 1))

    assert "NOAUTH" in answer


def test_notice_is_receipted_and_its_proof_verifies(deployment: Deployment) -> None:
    notice_id = deployment.send(0)
    assert notice_id

    deployment.until("a receipt for it", lambda: deployment.states() == {"receipted": 1})

    assert "receipt" in deployment.noticebus("ice", "notice", "trace", notice_id)


def test_person_at_hhs_closes_a_case_and_ice_hears_of_it(deployment: Deployment) -> None:
    taken = json.loads(
        deployment.noticebus("hhs", "--as", "clerk-1", "queue", "take", "-o", "json")
    )
    notice_id = taken["notice_id"]
    words = ("--as", "clerk-1", "queue", "outcome", notice_id, "SAFE_AT_ADDRESS")
    deployment.noticebus("hhs", *words)

    def closed() -> bool:
        shown = deployment.noticebus("ice", "notice", "show", notice_id, "-o", "json")
        return bool(json.loads(shown)["state"] == "closed")

    deployment.until("the outcome at ICE", closed)


@contextmanager
def officer_at_work(deployment: Deployment) -> Iterator[list[str]]:
    """Send notices by hand, one after the other, while the block runs; yields accepted ids."""
    accepted: list[str] = []
    going_home = threading.Event()

    def work() -> None:
        number = 1
        while not going_home.is_set():
            notice_id = deployment.send(number)
            # What was not confirmed is asked again: the same child and hearing is the same notice.
            if notice_id is not None:
                accepted.append(notice_id)
                number += 1

    officer = threading.Thread(target=work)
    officer.start()
    try:
        yield accepted
    finally:
        going_home.set()
        officer.join()


def test_nothing_is_lost_when_each_service_is_killed_in_the_middle(
    deployment: Deployment, docket: Docket
) -> None:
    with officer_at_work(deployment) as accepted:
        summary = deployment.import_docket(docket)
        for service in LIVING:
            deployment.compose("kill", "--signal", "KILL", service)
            deployment.compose("start", service)
            deployment.until_healthy(service)
        for service in LIVING:
            deployment.compose("restart", "--timeout", "30", service)
        for service in LIVING:
            deployment.until_healthy(service)
    deployment.until("a receipt for every notice", lambda: settled(deployment))

    assert summary["schema"] == "noticebus.v1/docket.import"
    receipted = [notice for notice in deployment.notices() if notice["receipt_at"]]
    assert len(accepted) > len(LIVING)
    assert set(accepted) <= {notice["notice_id"] for notice in receipted}
    keys = {str(notice["eoir_schedule_key"]) for notice in receipted} - {"None"}
    assert keys == docket.expected
    cases = [case["notice_id"] for case in deployment.cases()]
    assert sorted(cases) == sorted(notice["notice_id"] for notice in receipted)


def test_process_that_ends_is_started_again(deployment: Deployment) -> None:
    before = deployment.inspect("hhs-consumer")["RestartCount"]

    deployment.inside(
        "hhs-consumer", "python", "-c", "import os; os.kill(1, 15)", allowed=(0, 137, 143)
    )

    deployment.until(
        "started again by the engine",
        lambda: deployment.inspect("hhs-consumer")["RestartCount"] == before + 1,
    )
    deployment.until_healthy("hhs-consumer")


def test_ready_tells_the_truth_while_the_bus_is_away(deployment: Deployment) -> None:
    deployment.compose("stop", "--timeout", "10", "redis")
    ask = "from urllib.request import urlopen; urlopen('http://127.0.0.1:8080/ready', timeout=9)"

    def says_so() -> bool:
        answer = deployment.inside(
            "ice-producer", "python", "-c", f"{ask}; print(200)", allowed=(0, 1)
        )
        return answer.strip() != "200"

    try:
        deployment.until("not ready", says_so, seconds=60)
    finally:
        deployment.compose("start", "redis")
    for service in LIVING:
        deployment.until_healthy(service)


def test_up_again_changes_nothing(deployment: Deployment) -> None:
    fingerprints = deployment.noticebus("ice", "party", "list", "-o", "csv")
    notices = deployment.notices()

    deployment.up()

    assert deployment.noticebus("ice", "party", "list", "-o", "csv") == fingerprints
    assert deployment.notices() == notices


def test_everything_is_there_after_down_and_up(deployment: Deployment) -> None:
    notices = deployment.notices()

    deployment.compose("down", "--timeout", "30")
    deployment.up()

    assert deployment.notices() == notices


def test_demo_profile_shows_notices_flowing(deployment: Deployment) -> None:
    deployment.compose("--profile", "demo", "up", "--detach", "--no-deps", "demo")
    container = deployment.compose("--profile", "demo", "ps", "--all", "--quiet", "demo").strip()

    ended = deployment.docker("wait", container).strip()

    told = deployment.docker("logs", container)
    assert ended == "0", told
    assert re.search(r"^notices: .*receipted", told, re.MULTILINE)
    assert settled(deployment)


@pytest.mark.parametrize("agency", SENDERS)
def test_ledger_is_whole_after_all_this(deployment: Deployment, agency: str) -> None:
    deployment.noticebus(agency, "ledger", "verify")
