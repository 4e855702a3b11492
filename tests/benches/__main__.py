"""Run the benches: JSON on standard output, a small table on standard error."""

import argparse
import json
import shutil
import sys
import tempfile
from collections.abc import Callable
from pathlib import Path
from typing import Any

from tests.benches import peer, pipeline
from tests.benches.ground import environment

BENCHES = ("peer", "latency", "backlog", "docket")


def main() -> None:
    """Run what is asked for, each in a home of its own that is removed afterwards."""
    parser = argparse.ArgumentParser(prog="python -m tests.benches")
    parser.add_argument("benches", nargs="*", default=BENCHES, choices=[*BENCHES, []])
    parser.add_argument("--missed", type=int, default=43_000, help="missed hearings, backlog")
    parser.add_argument("--rows", type=int, default=120_000, help="proceedings, backlog")
    parser.add_argument("--seconds", type=int, default=60, help="of latency")
    parser.add_argument("--per-second", type=int, default=50, help="notices, latency")
    parser.add_argument("--messages", type=int, default=10_000, help="of the peer")
    parser.add_argument("--docket-rows", type=int, default=2_000_000, help="proceedings, docket")
    asked = parser.parse_args()
    folder = Path(tempfile.mkdtemp(prefix="noticebus-bench-"))
    work: dict[str, Callable[[], dict[str, Any]]] = {
        "peer": lambda: peer.run(asked.messages),
        "latency": lambda: pipeline.latency(
            folder / "latency", per_second=asked.per_second, seconds=asked.seconds
        ),
        "backlog": lambda: pipeline.backlog(
            folder / "backlog", missed=asked.missed, rows=asked.rows
        ),
        "docket": lambda: pipeline.docket(folder / "docket", rows=asked.docket_rows),
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
