"""A witness of C2SP tlog-witness on loopback, which checks what a real one has to check."""

import base64
import threading
from collections.abc import Iterator
from contextlib import contextmanager
from dataclasses import dataclass, field
from datetime import UTC, datetime
from http.server import BaseHTTPRequestHandler, ThreadingHTTPServer

from cryptography.hazmat.primitives.asymmetric.ed25519 import Ed25519PrivateKey

from schemas.checkpoint import Checkpoint, Signer, Verifier, parse_checkpoint, verify_checkpoint
from schemas.cosignature import cosign, cosigner
from schemas.errors import EvidenceError
from schemas.proof import EMPTY_ROOT, verify_consistency


@dataclass
class WitnessServer:
    """What the witness knows, and how a test makes it misbehave.

    `seen` is the newest checkpoint cosigned of each log; `asked` has the old size and the size of
    each request. Nobody is answered until it `speaks`; after each byte it rests `pause_seconds`.
    """

    signer: Signer
    url: str = ""
    logs: dict[str, Verifier] = field(default_factory=dict)
    seen: dict[str, Checkpoint] = field(default_factory=dict)
    asked: list[tuple[int, int]] = field(default_factory=list)
    speaks: threading.Event = field(default_factory=threading.Event)
    stops: threading.Event = field(default_factory=threading.Event)
    instead: tuple[int, bytes] | None = None
    pause_seconds: float = 0.0
    requests: int = 0
    lock: threading.Lock = field(default_factory=threading.Lock)

    @property
    def vkey(self) -> str:
        return cosigner(self.signer).vkey()

    def knows(self, log_key: Signer) -> None:
        """Enter a log, as the witness's keeper would."""
        self.logs[log_key.name] = log_key.verifier

    def add_checkpoint(self, body: str) -> tuple[int, str, bytes]:
        """Answer one request: status, content type, body."""
        head, _, note = body.partition("\n\n")
        first, *lines = head.split("\n")
        origin = note.partition("\n")[0]
        if origin not in self.logs:
            return 404, "text/plain", b""
        try:
            point = verify_checkpoint(note, [self.logs[origin]])
        except EvidenceError:
            return 403, "text/plain", b""
        old = int(first.removeprefix("old "))
        with self.lock:
            self.asked.append((old, point.size))
            known = self.seen.get(origin, Checkpoint(origin, 0, EMPTY_ROOT))
            if old > point.size:
                return 400, "text/plain", b""
            if old != known.size:
                return 409, "text/x.tlog.size", b"%d\n" % known.size
            if old == point.size and known.root != point.root:
                return 409, "text/plain", b""
            try:
                verify_consistency(
                    old=old,
                    old_root=known.root,
                    new=point.size,
                    new_root=point.root,
                    proof=[base64.b64decode(line, validate=True) for line in lines],
                )
            except EvidenceError:
                return 422, "text/plain", b""
            self.seen[origin] = point
        line = cosign(parse_checkpoint(note).checkpoint, self.signer, datetime.now(UTC))
        return 200, "text/plain", line.encode()


@contextmanager
def a_witness(name: str = "witness.example/w1") -> Iterator[WitnessServer]:
    """Serve a witness with a new key while the block runs."""
    witness = WitnessServer(Signer(name, Ed25519PrivateKey.generate()))
    witness.speaks.set()

    class Answers(BaseHTTPRequestHandler):
        def do_POST(self) -> None:
            body = self.rfile.read(int(self.headers["Content-Length"])).decode()
            witness.requests += 1
            witness.speaks.wait()
            if witness.instead is not None:
                status, kind, content = witness.instead[0], "text/plain", witness.instead[1]
            elif self.path == "/prefix/add-checkpoint":
                status, kind, content = witness.add_checkpoint(body)
            else:
                status, kind, content = 404, "text/plain", b""
            self.send_response(status)
            self.send_header("Content-Type", kind)
            self.send_header("Content-Length", str(len(content)))
            self.end_headers()
            for place in range(len(content)):
                self.wfile.write(content[place : place + 1])
                if witness.pause_seconds:
                    witness.stops.wait(witness.pause_seconds)
                    if witness.stops.is_set():
                        return

        def log_message(self, *_: object) -> None:
            """Say nothing."""

    server = ThreadingHTTPServer(("127.0.0.1", 0), Answers)
    witness.url = f"http://127.0.0.1:{server.server_port}/prefix/"
    thread = threading.Thread(target=server.serve_forever, daemon=True)
    thread.start()
    try:
        yield witness
    finally:
        witness.speaks.set()
        witness.stops.set()
        server.shutdown()
        thread.join()
        server.server_close()
