"""Serve `/health`, `/ready`, `/metrics` and what else a process adds, from inside of it.

`/health` answers as long as the event loop turns. `/ready` asks every probe and answers 503 with
the failing ones named unless all of them hold; a probe that does not answer in time has failed. No
answer holds personal data, so the port needs no sign-in, yet it listens on this machine alone
unless told otherwise.
"""

import asyncio
import contextlib
import inspect
import socket
from collections.abc import Awaitable, Callable, Iterator, Mapping, Sequence
from dataclasses import dataclass
from typing import Protocol, Self

import uvicorn
from fastapi import APIRouter, FastAPI, Request, Response
from fastapi.responses import JSONResponse
from prometheus_client import CONTENT_TYPE_LATEST, generate_latest

from schemas.errors import NotAllowedError, NotFoundError, NoticeBusError, UnavailableError
from services.telemetry.metrics import REGISTRY

PROBE_SECONDS = 3.0
STOP_SECONDS = 5.0
STATUS: Mapping[type, int] = {NotFoundError: 404, NotAllowedError: 401, UnavailableError: 503}


@dataclass(frozen=True, slots=True)
class Probe:
    """What one part says of itself; `detail` is a short sentence without personal data."""

    ok: bool
    detail: str


class Listening(Protocol):
    """Where to listen: `services.settings.HttpSettings` says so."""

    @property
    def host(self) -> str:
        """The address of this machine to listen on."""
        ...

    @property
    def port(self) -> int | None:
        """The port; None means not at all."""
        ...


ProbeCall = Callable[[], Probe | Awaitable[Probe]]
Refresh = Callable[[], Awaitable[None]]


def application(
    probes: Mapping[str, ProbeCall],
    *,
    refreshes: Sequence[Refresh] = (),
    routers: Sequence[APIRouter] = (),
) -> FastAPI:
    """Return the HTTP application; `refreshes` bring gauges up to date before they are read.

    What `routers` raise is answered in the words that the command line uses.
    """
    app = FastAPI(title="noticebus health", docs_url=None, redoc_url=None, openapi_url=None)

    @app.get("/health")
    async def health() -> dict[str, str]:
        return {"status": "live"}

    @app.get("/ready")
    async def ready() -> JSONResponse:
        answers = await ask(probes)
        ok = all(answer.ok for answer in answers.values())
        return JSONResponse(
            {
                "status": "ready" if ok else "not ready",
                "probes": {
                    name: {"ok": answer.ok, "detail": answer.detail}
                    for name, answer in answers.items()
                },
            },
            status_code=200 if ok else 503,
        )

    @app.get("/metrics")
    async def metrics() -> Response:
        for refresh in refreshes:
            # A store that is away must not hide the counters that say so.
            with contextlib.suppress(UnavailableError, TimeoutError):
                async with asyncio.timeout(PROBE_SECONDS):
                    await refresh()
        return Response(generate_latest(REGISTRY), media_type=CONTENT_TYPE_LATEST)

    @app.exception_handler(NoticeBusError)
    async def refused(_: Request, error: Exception) -> JSONResponse:
        assert isinstance(error, NoticeBusError)
        return refusal(error)

    for router in routers:
        app.include_router(router)
    return app


def refusal(error: NoticeBusError) -> JSONResponse:
    """Return an error as every part of this project words it."""
    status = next((STATUS[kind] for kind in type(error).mro() if kind in STATUS), 500)
    headers = {"WWW-Authenticate": "Bearer"} if status == 401 else None
    content = {"code": error.code, "sentence": error.sentence, "fix": error.fix}
    return JSONResponse(content, status_code=status, headers=headers)


async def ask(probes: Mapping[str, ProbeCall]) -> dict[str, Probe]:
    """Ask all probes at once and return their answers by name; none takes over three seconds."""
    answers = await asyncio.gather(*(_ask_one(call) for call in probes.values()))
    return dict(zip(probes, answers, strict=True))


async def _ask_one(call: ProbeCall) -> Probe:
    try:
        async with asyncio.timeout(PROBE_SECONDS):
            answer = call()
            return await answer if inspect.isawaitable(answer) else answer
    except TimeoutError:
        return Probe(ok=False, detail=f"no answer in {PROBE_SECONDS:g} s")
    except NoticeBusError as error:
        return Probe(ok=False, detail=f"{error.code} {error.sentence}")


class _Server(uvicorn.Server):
    """uvicorn without its signal handlers: the process decides when it ends."""

    @contextlib.contextmanager
    def capture_signals(self) -> Iterator[None]:
        yield


class HealthServer:
    """The HTTP server of one process; `async with` starts and stops it.

    Without a port in the settings it does nothing. `port` is the one taken.
    """

    def __init__(
        self,
        http: Listening,
        probes: Mapping[str, ProbeCall],
        *,
        refreshes: Sequence[Refresh] = (),
        routers: Sequence[APIRouter] = (),
    ) -> None:
        self._http = http
        self._app = application(probes, refreshes=refreshes, routers=routers)
        self._server: _Server | None = None
        self._serving: asyncio.Task[None] | None = None
        self.port: int | None = None

    async def start(self) -> None:
        """Listen and serve; raises `UnavailableError` NB-9040 when the port is taken."""
        if self._http.port is None:
            return
        try:
            listening = socket.create_server((self._http.host, self._http.port), backlog=64)
        except OSError as error:
            raise UnavailableError(
                "NB-9040", host=self._http.host, port=self._http.port, cause=error.strerror
            ) from error
        self.port = listening.getsockname()[1]
        config = uvicorn.Config(
            self._app, log_config=None, access_log=False, lifespan="off", timeout_keep_alive=5
        )
        self._server = _Server(config)
        self._serving = asyncio.create_task(
            self._server.serve(sockets=[listening]), name="health server"
        )

    async def stop(self) -> None:
        """Stop serving; at most five seconds, then connections are cut."""
        if self._server is None or self._serving is None:
            return
        self._server.should_exit = True
        with contextlib.suppress(TimeoutError):
            async with asyncio.timeout(STOP_SECONDS):
                await self._serving
        self._server, self._serving = None, None

    async def __aenter__(self) -> Self:
        await self.start()
        return self

    async def __aexit__(self, *_: object) -> None:
        await self.stop()
