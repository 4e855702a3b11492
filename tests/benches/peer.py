"""Plain FastStream as its documentation shows it, on a durable Redis: the yardstick.

The publisher awaits each message, one handler takes one message, FastStream acknowledges it. It
signs nothing, encrypts nothing and stores nothing.
"""

import asyncio
import base64
import logging
import os
import subprocess
import sys
import tempfile
import time
from pathlib import Path
from typing import Any

from services.embedded import RedisServer

# As many bytes as the envelope of a notice from the docket has.
PAYLOAD_BYTES = 3_900
STREAM = "peer"
# A line for each message would be measured along with it, and fill the pipe that nobody reads.
QUIET = logging.getLogger("peer")


def run(messages: int) -> dict[str, Any]:
    """Publish and handle `messages`; publisher and consumer are processes of their own."""
    with tempfile.TemporaryDirectory() as folder, RedisServer(Path(folder) / "redis") as server:
        consumer = _start("consume", server.url, messages)
        assert consumer.stdout is not None
        consumer.stdout.readline()
        began = time.perf_counter()
        publisher = _start("publish", server.url, messages)
        publisher.wait(600)
        published = time.perf_counter() - began
        consumer.wait(600)
        took = time.perf_counter() - began
    return {
        "messages": messages,
        "seconds": round(took, 2),
        "publish_seconds": round(published, 2),
        "messages_per_second": round(messages / took),
    }


def _start(role: str, url: str, messages: int) -> subprocess.Popen[bytes]:
    return subprocess.Popen(
        [sys.executable, "-m", "tests.benches.peer", role, url, str(messages)],
        stdout=subprocess.PIPE,
        stderr=subprocess.DEVNULL,
    )


async def _publish(url: str, messages: int) -> None:
    from faststream.redis import RedisBroker

    content = base64.b64encode(os.urandom(PAYLOAD_BYTES * 3 // 4)).decode()
    async with RedisBroker(url, logger=QUIET) as broker:
        for number in range(messages):
            await broker.publish({"number": number, "content": content}, stream=STREAM)


async def _consume(url: str, messages: int) -> None:
    from faststream.redis import RedisBroker, StreamSub

    broker = RedisBroker(url, logger=QUIET)
    done, seen = asyncio.Event(), 0

    @broker.subscriber(stream=StreamSub(STREAM, group="peer", consumer="peer-0", max_records=100))
    async def handle(body: dict[str, Any]) -> None:
        nonlocal seen
        assert body["content"]
        seen += 1
        if seen == messages:
            done.set()

    await broker.start()
    sys.stdout.write("ready\n")
    sys.stdout.flush()
    await done.wait()
    # The last acknowledgement goes out after the handler.
    await asyncio.sleep(0.05)
    await broker.stop()


if __name__ == "__main__":
    QUIET.setLevel(logging.WARNING)
    role, address, count = sys.argv[1], sys.argv[2], int(sys.argv[3])
    asyncio.run((_publish if role == "publish" else _consume)(address, count))
