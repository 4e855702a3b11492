"""The main job end to end on this machine: both agencies, real servers, invented people.

What a person would type is run as they would type it, so the demo shows the commands and proves
that they work. It ends with every process it started ended, and exits 0 only if each step held.
"""

import asyncio
import json
import shutil
import signal
import subprocess
import sys
import time
from collections import Counter
from collections.abc import Callable, Iterator, Mapping, Sequence
from contextlib import contextmanager
from dataclasses import dataclass, field
from pathlib import Path
from typing import TYPE_CHECKING, Annotated, Any

import typer

from schemas.errors import ConflictError, RejectedError, UnavailableError
from schemas.party import fingerprint
from services.cli.everywhere import verb
from services.cli.exits import ExitCode, say
from services.cli.session import Session, session_of

if TYPE_CHECKING:
    from services.ice.notices import NoticeItem

app = verb()

AGENCIES = ("ice", "hhs")
# A step that takes longer has failed; the whole demo takes about half a minute.
STEP_SECONDS = 60.0
MISSED = 200


@dataclass(slots=True)
class Demo:
    """One run in one home folder."""

    home: Path
    databases: Mapping[str, str] = field(default_factory=dict)
    began: float = field(default_factory=time.monotonic)

    def step(self, words: str) -> None:
        """Tell what comes next."""
        say("", f"[{time.monotonic() - self.began:4.1f} s] {words}")

    def run(
        self, line: str, *, allowed: Sequence[int] = (ExitCode.DONE,), shown: bool = True
    ) -> str:
        """Run one command as a person would; returns its standard output.

        Raises `UnavailableError` NB-9010 when it ends with an exit code that is not `allowed`.
        """
        say(f"  $ noticebus {line}")
        done = subprocess.run(
            [*_noticebus(), "--home", str(self.home), *line.split()],
            capture_output=True,
            text=True,
            timeout=STEP_SECONDS,
            check=False,
        )
        if done.returncode not in allowed:
            say(*done.stderr.splitlines())
            raise UnavailableError("NB-9010", command=line, exit_code=done.returncode)
        if shown:
            say(*(f"    {text}" for text in (done.stdout + done.stderr).splitlines() if text))
        return done.stdout

    def read(self, line: str) -> Any:
        """Run one command for its JSON."""
        return json.loads(self.run(f"{line} -o json", shown=False))

    def until(self, what: str, done: Callable[[], bool]) -> None:
        """Wait for a condition. Raises `UnavailableError` NB-9011 when it does not come."""
        deadline = time.monotonic() + STEP_SECONDS
        while not done():
            if time.monotonic() > deadline:
                raise UnavailableError("NB-9011", what=what, seconds=int(STEP_SECONDS))
            time.sleep(0.1)

    def states(self) -> Counter[str]:
        """Return how many notices are in each state at ICE."""
        return Counter(item.state for item in self._listed())

    def state_of(self, notice_id: str) -> str:
        """Return the state of one notice at ICE."""
        return next(item.state for item in self._listed() if str(item.notice_id) == notice_id)

    def _listed(self) -> "Sequence[NoticeItem]":
        """Look without a process of its own: waiting asks many times."""
        from services.ice import notices
        from services.ledger.store import Store

        async def look() -> "Sequence[NoticeItem]":
            async with await Store.open(self.databases["ice"], pool_max=1) as store:
                return await notices.listed(store, limit=100_000)

        return asyncio.run(look())


@app.command()
def demo(
    ctx: typer.Context,
    *,
    rows: Annotated[int, typer.Option(min=400, help="Proceedings in the invented docket.")] = 2000,
    serve: Annotated[
        bool, typer.Option("--serve", help="Let both agencies go on afterwards, until Ctrl-C.")
    ] = False,
) -> None:
    """Run the main job end to end, with embedded servers; about half a minute, exit 0."""
    # Whoever ends it from outside means what Ctrl-C means: both agencies end with it.
    signal.signal(signal.SIGTERM, signal.default_int_handler)
    session = session_of(ctx)
    home = session.home / "demo"
    _make_room(home)
    _tell(Demo(home.absolute()), rows, session if serve else None)


def _make_room(home: Path) -> None:
    """Leave an empty folder, in the place of an earlier demo's and of nothing else.

    Raises `ConflictError` NB-7036 while somebody uses that one, `RejectedError` NB-1043 for a
    folder that is no home of ours.
    """
    from services.embedded import in_use, is_home

    if in_use(home):
        raise ConflictError("NB-7036", home=home)
    if home.exists() and any(home.iterdir()) and not is_home(home):
        raise RejectedError("NB-1043", folder=home)
    shutil.rmtree(home, ignore_errors=True)
    home.mkdir(parents=True, mode=0o700)


def _tell(demo: Demo, rows: int, serving: Session | None) -> None:
    from services.embedded import attach

    say("noticebus demo: everyone in it is invented; all of it stays in", f"  {demo.home}")
    with attach(demo.home) as servers:
        demo.databases = servers.database_urls
        demo.step("Each agency makes keys, and trusts the other's party file by its fingerprint.")
        _introduce(demo)
        demo.step("Both agencies run, as processes of their own.")
        with _running(demo, "ice"), _running(demo, "hhs"):
            _notices(demo, rows)
            _stranger(demo)
            _person(demo)
            _replay(demo)
        demo.step("Both ledgers are verified: every record, every checkpoint.")
        for agency in AGENCIES:
            demo.run(f"--agency {agency} ledger verify")
        demo.step("How often was it used, and by which office?")
        demo.run("--agency ice report usage")
        if serving is not None:
            _serve(demo, serving)
    say(
        "",
        f"Done in {time.monotonic() - demo.began:.0f} s. Everything is still in {demo.home};",
        "each command starts the servers it needs and stops them. Try next:",
        f"  noticebus --home {demo.home} --agency ice notice list",
        f"  noticebus --home {demo.home} --agency ice notice trace ID",
        f"  noticebus --home {demo.home} --agency hhs queue list",
        f"  noticebus --home {demo.home} run ice      (and run hhs; then send, and see it arrive)",
    )


def _serve(demo: Demo, session: Session) -> None:
    """Let both agencies run until Ctrl-C; raises `UnavailableError` NB-9012 if one ends."""
    command = f"noticebus --home {demo.home}"
    demo.step("Both agencies go on until Ctrl-C. In another terminal, say:")
    say(
        f"  {command} --agency hhs watch",
        f"  {command} --agency ice notice list --state to_confirm",
        f"  {command} --agency ice notice confirm ID",
    )
    session.finished = f"Both agencies ended; everything is still in {demo.home}"
    with _running(demo, "ice") as ice, _running(demo, "hhs") as hhs:
        while ice.poll() is None and hhs.poll() is None:
            time.sleep(0.2)


def _introduce(demo: Demo) -> None:
    for agency in AGENCIES:
        demo.run(f"--agency {agency} keys generate", shown=False)
    for agency in AGENCIES:
        _trust(demo, agency)


def _trust(demo: Demo, agency: str) -> None:
    """Let the other agency trust the party file of `agency`."""
    peer = "hhs" if agency == "ice" else "ice"
    file = demo.home / f"{agency}-party.json"
    demo.run(f"--agency {agency} --yes party export {file}", shown=False)
    told = fingerprint(file.read_bytes())
    demo.run(f"--agency {peer} party trust {file} --fingerprint {told}")


def _notices(demo: Demo, rows: int) -> None:
    demo.step(f"A docket of {rows:,} proceedings is invented, in the court's own layout.")
    docket = demo.home / "docket"
    demo.run(f"--agency ice docket synthesize {docket} --rows {rows} --missed {MISSED} --seed 7")
    demo.step("ICE finds the missed hearings in it; notices go out as they are found.")
    # Exit code 5: some rows were rejected, as they were planted to be.
    demo.run(f"--agency ice docket import {docket}", allowed=(ExitCode.DONE, ExitCode.PARTLY_DONE))
    demo.step("HHS takes them; its receipts come back and are verified.")
    demo.until(
        "a verified receipt for every notice",
        lambda: not {"recorded", "sent"} & demo.states().keys(),
    )
    say(f"    {_counted(demo.states())}")


def _stranger(demo: Demo) -> None:
    demo.step("ICE signs one notice with a new key that HHS does not trust yet.")
    demo.run("--agency ice keys rotate", shown=False)
    sent = json.loads(
        demo.run(
            "--agency ice --yes notice send --a-number A200000417 --given-name Sample"
            " --family-name Child --birth-date 2012-05-04 --court HOU --office HOU"
            " --hearing 2026-11-20T09:00 --outcome MISSED_NO_ORDER -o json",
            shown=False,
        )
    )
    # The refusal that comes back says that HHS has set it aside.
    demo.until("the refusal", lambda: demo.state_of(sent["notice_id"]) == "dead")
    demo.run("--agency hhs dead list -o plain")
    demo.step("HHS trusts the new party file, and redrives the same bytes.")
    _trust(demo, "ice")
    demo.run("--agency hhs --yes dead redrive --all --reason the-new-key-is-trusted-now")
    demo.until(
        "the receipt of the redriven notice",
        lambda: demo.state_of(sent["notice_id"]) == "receipted",
    )
    demo.run(f"--agency ice notice trace {sent['notice_id']}")


def _person(demo: Demo) -> None:
    demo.step("A person at HHS takes the next notice and closes it; ICE hears of both.")
    taken = demo.read("--agency hhs --as clerk-1 queue take")
    notice_id = taken["notice_id"]
    demo.run(f"--agency hhs --as clerk-1 queue outcome {notice_id} SAFE_AT_ADDRESS")
    demo.until(
        "the outcome at ICE",
        lambda: demo.state_of(notice_id) == "closed",
    )
    demo.run(f"--agency ice notice trace {notice_id}")


def _replay(demo: Demo) -> None:
    demo.step("A replay is planned, looked at, and run: it changes nothing that is right.")
    plan = demo.read("--agency hhs replay plan --to store")
    demo.run(f"--agency hhs replay run {plan['plan_id']} --reason demo --confirm {plan['changes']}")


@contextmanager
def _running(demo: Demo, agency: str) -> Iterator[subprocess.Popen[bytes]]:
    """Run an agency while the block does; it ends in good order, or the demo has failed."""
    log = demo.home / f"{agency}.log"
    with log.open("ab") as output:
        process = subprocess.Popen(
            [*_noticebus(), "--home", str(demo.home), "run", agency],
            stdin=subprocess.DEVNULL,
            stdout=output,
            stderr=output,
        )
    try:
        yield process
        if process.poll() is not None:
            raise UnavailableError("NB-9012", agency=agency, log=log)
    finally:
        process.terminate()
        try:
            process.wait(STEP_SECONDS)
        except subprocess.TimeoutExpired:
            process.kill()
            process.wait()
    if process.returncode:
        raise UnavailableError("NB-9012", agency=agency, log=log)


def _noticebus() -> list[str]:
    return [sys.executable, "-c", "import sys; from services.cli import main; sys.exit(main())"]


def _counted(states: Counter[str]) -> str:
    return ", ".join(f"{count} {state}" for state, count in sorted(states.items()))
