"""One part of an agency as a process of its own, as `noticebus run` would start it.

`python -m tests.faults.part SETTINGS PARTS [DIE_AT]`: SETTINGS is a JSON file. With DIE_AT the
process kills itself (SIGKILL) at that point the first time it comes there: `publish`, between the
commit that numbered messages and XADD; `sign`, after a checkpoint was signed, before its commit;
`anchor`, between that commit and the anchor.
"""

import asyncio
import json
import os
import signal
import sys
from collections.abc import Sequence
from pathlib import Path
from typing import NoReturn

import uvloop

from services import telemetry
from services.bus import Publisher
from services.hhs import process as hhs
from services.ice import process as ice
from services.ledger import sealer
from services.ledger.anchor import Anchor
from services.settings import Settings

MAINS = {"ice": ice.main, "hhs": hhs.main}


def main() -> None:
    """Run until told to stop, or dead."""
    settings = Settings(**json.loads(Path(sys.argv[1]).read_bytes()))
    parts = tuple(sys.argv[2].split(","))
    telemetry.configure(agency=settings.agency, process=sys.argv[2], level="WARNING")
    match sys.argv[3:]:
        case ["publish"]:
            Publisher.publish = _publish_never  # type: ignore[method-assign]  # the fault
        case ["sign"]:
            setattr(sealer, "sign_checkpoint", _sign_and_die)  # noqa: B010 - the fault
        case ["anchor"]:
            Anchor.write = _anchor_never  # type: ignore[method-assign]  # the fault
    with asyncio.Runner(loop_factory=uvloop.new_event_loop) as runner:
        runner.run(MAINS[settings.agency](settings, parts))


async def _publish_never(self: Publisher, stream: str, envelopes: Sequence[bytes]) -> NoReturn:
    _die()


def _anchor_never(self: Anchor, note: str) -> NoReturn:
    _die()


def _sign_and_die(*_: object) -> NoReturn:
    _die()


def _die() -> NoReturn:
    os.kill(os.getpid(), signal.SIGKILL)
    raise AssertionError("dead processes do not go on")


if __name__ == "__main__":
    main()
