"""Benches disturb nobody on their machine, another bench least of all."""

import re
import socket
from contextlib import ExitStack
from pathlib import Path

import tests.benches
from tests.benches.ground import free_port

SOURCES = Path(tests.benches.__file__).parent


def test_ports_are_free_ones_and_none_is_written_down() -> None:
    with ExitStack() as taken:
        for _ in range(20):
            taken.enter_context(socket.create_server(("127.0.0.1", free_port())))

    said = {path.name: re.findall(r"\b1[0-9]{4}\b", path.read_text()) for path in SOURCES.glob("*")
            if path.suffix == ".py"}  # fmt: skip
    assert not any(said.values()), said
