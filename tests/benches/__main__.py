"""Run the benches: JSON on standard output, a small table on standard error."""

import argparse
import json
import logging
import shutil
import sys
import tempfile
from collections.abc import Callable
from pathlib import Path
from typing import Any

import structlog

from tests.benches import ledger, lived, peer, pipeline, proof, rebuild, redrive, replay, shadow
from tests.benches.ground import environment

BENCHES = (
    "peer",
    "exchange",
    "latency",
    "backlog",
    "docket",
    "rebuild",
    "redrive",
    "replay",
    "shadow",
    "proof",
    "ledger",
    "lived",
)


def main() -> None:
    """Run what is asked for, each in a home of its own that is removed afterwards."""
    parser = argparse.ArgumentParser(prog="python -m tests.benches")
    parser.add_argument("benches", nargs="*", default=BENCHES, choices=[*BENCHES, []])
    parser.add_argument("--missed", type=int, default=43_000, help="missed hearings, backlog")
    parser.add_argument("--rows", type=int, default=120_000, help="proceedings, backlog")
    parser.add_argument("--seconds", type=int, default=60, help="of latency")
    parser.add_argument("--per-second", type=int, default=50, help="notices, latency")
    parser.add_argument(
        "--messages", type=int, default=10_000, help="of the peer, and of the exchange"
    )
    parser.add_argument("--docket-rows", type=int, default=2_000_000, help="proceedings, docket")
    parser.add_argument("--unreceipted", type=int, default=100_000, help="messages, rebuild")
    parser.add_argument("--letters", type=int, default=10_000, help="dead letters, redrive")
    parser.add_argument("--replayed", type=int, default=50_000, help="notices, replay")
    parser.add_argument(
        "--full", action="store_true", help=f"replay of {replay.FULL:,} notices: half an hour"
    )
    parser.add_argument("--notices", type=int, default=50_000, help="notices, shadow")
    parser.add_argument("--records", type=int, default=1_000_000, help="made up, ledger")
    parser.add_argument(
        "--lived", type=int, default=120_000, help="records of real messages; a million take hours"
    )
    parser.add_argument("--proven", type=int, default=5_000, help="notices, proof")
    asked = parser.parse_args()
    # What the exchange says in this process would stand before the JSON on standard output.
    structlog.configure(wrapper_class=structlog.make_filtering_bound_logger(logging.WARNING))
    folder = Path(tempfile.mkdtemp(prefix="noticebus-bench-"))
    work: dict[str, Callable[[], dict[str, Any]]] = {
        "peer": lambda: peer.run(asked.messages),
        "exchange": lambda: pipeline.exchange(folder / "exchange", messages=asked.messages),
        "latency": lambda: pipeline.latency(
            folder / "latency", per_second=asked.per_second, seconds=asked.seconds
        ),
        "backlog": lambda: pipeline.backlog(
            folder / "backlog", missed=asked.missed, rows=asked.rows
        ),
        "docket": lambda: pipeline.docket(folder / "docket", rows=asked.docket_rows),
        "rebuild": lambda: rebuild.run(folder / "rebuild", messages=asked.unreceipted),
        "redrive": lambda: redrive.run(
            folder / "redrive", letters=asked.letters, per_second=asked.per_second
        ),
        "replay": lambda: replay.run(
            folder / "replay", notices=replay.FULL if asked.full else asked.replayed
        ),
        "shadow": lambda: shadow.run(folder / "shadow", notices=asked.notices),
        "ledger": lambda: ledger.run(
            folder / "ledger",
            records=asked.records,
            seconds=min(asked.seconds, 20),
        ),
        "lived": lambda: lived.run(folder / "lived", records=asked.lived),
        "proof": lambda: proof.run(folder / "proof", notices=asked.proven),
    }
    try:
        results: dict[str, Any] = {"environment": environment(folder)}
        for name in asked.benches:
            sys.stderr.write(f"{name} ...\n")
            results[name] = work[name]()
            for key, value in results[name].items():
                sys.stderr.write(f"  {key:32} {json.dumps(value)}\n")
    finally:
        shutil.rmtree(folder, ignore_errors=True)
    json.dump(results, sys.stdout, indent=2)
    sys.stdout.write("\n")


if __name__ == "__main__":
    main()
