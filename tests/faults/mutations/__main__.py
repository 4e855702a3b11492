"""The long run: `make mutations`; JSON on standard output, exit 1 when one was not found."""

import argparse
import asyncio
import json
import sys
import tempfile
from pathlib import Path

from services.embedded import PostgresServer, RedisServer
from services.ledger.store import migrate
from tests.faults.mutations.ground import grounds
from tests.faults.mutations.running import HANDED_OUT_SHARE, Tally, run


def main() -> int:
    """Make servers and ledgers, run, and tell; returns the exit code."""
    parser = argparse.ArgumentParser(prog="python -m tests.faults.mutations")
    parser.add_argument("--mutations", type=int, default=20_000)
    parser.add_argument("--seconds", type=float, default=float("inf"), help="at most")
    parser.add_argument("--seed", type=int, default=1)
    parser.add_argument(
        "--handed-out",
        type=float,
        default=HANDED_OUT_SHARE,
        help="share of bundles, exported folders and receipts, 0 to 1",
    )
    asked = parser.parse_args()
    with tempfile.TemporaryDirectory(prefix="noticebus-mutations-") as folder:
        home = Path(folder)
        with (
            RedisServer(home / "redis") as redis,
            PostgresServer(home / "ice") as ice,
            PostgresServer(home / "hhs") as hhs,
        ):
            migrate(ice.url, "ice")
            migrate(hhs.url, "hhs")
            urls = {"ice": ice.url, "hhs": hhs.url}
            tally = asyncio.run(_run(home, urls, redis.url, asked))
    report = {
        "mutations": tally.tried,
        "seed": asked.seed,
        "found": tally.found.total(),
        "missed": tally.missed,
        "misplaced": tally.misplaced,
        "seconds": round(tally.seconds, 1),
        "by_kind": dict(sorted(tally.found.items())),
    }
    print(json.dumps(report, indent=1))
    return 1 if tally.missed or tally.misplaced else 0


async def _run(
    home: Path, urls: dict[str, str], redis_url: str, asked: argparse.Namespace
) -> Tally:
    async with grounds(home, urls.__getitem__, redis_url) as both:
        return await run(
            both,
            seed=asked.seed,
            mutations=asked.mutations,
            seconds=asked.seconds,
            handed_out_share=asked.handed_out,
            told=lambda tried: print(f"{tried} mutations", file=sys.stderr),
        )


if __name__ == "__main__":
    sys.exit(main())
