"""Serve the log over HTTP below `/log/`, as C2SP tlog-tiles lays it out.

Checkpoint and hash tiles hold nothing personal and are for whoever can reach the port; entries, the
records themselves, are for bearers of an inspector's token. Everything but the checkpoint and
partial tiles is the same for ever, and says so to caches. Nothing is given out from a store that
does not continue its anchor. Source: https://c2sp.org/tlog-tiles
"""

import re
from collections.abc import Awaitable, Callable

from fastapi import APIRouter, Depends, Header, Response

from schemas.errors import EvidenceError, NotAllowedError, NotFoundError
from services.ledger import tree
from services.ledger.access import may_read
from services.ledger.export import entry_bundle
from services.ledger.store import Store, log
from services.ledger.tiles import TILE_HEIGHT, TILE_WIDTH, tile_path

_PLACE = re.compile(r"((?:x[0-9]{3}/){0,5})([0-9]{3})(?:\.p/([1-9][0-9]{0,2}))?", re.ASCII)
_LEVEL = re.compile(r"[0-9]|[1-5][0-9]|6[0-3]", re.ASCII)
_FOR_EVER = "public, max-age=31536000, immutable"


def log_routes(store: Store, hold: Callable[[], Awaitable[None]]) -> APIRouter:
    """Return the routes of one agency's log; `hold` raises while nothing of it may leave."""

    async def held() -> None:
        await hold()

    router = APIRouter(prefix="/log", dependencies=[Depends(held)])

    @router.get("/checkpoint")
    async def checkpoint() -> Response:
        async with store.glance() as look:
            newest = await log.newest_checkpoint(look)
        if newest is None:
            raise NotFoundError("NB-3093")
        headers = {"Cache-Control": "no-cache"}
        return Response(newest[1], media_type="text/plain; charset=utf-8", headers=headers)

    @router.get("/tile/entries/{place:path}")
    async def entries(place: str, authorization: str = Header(default="")) -> Response:
        scheme, _, secret = authorization.partition(" ")
        if scheme.lower() != "bearer" or not await may_read(store, secret.strip()):
            raise NotAllowedError("NB-4050")
        n, width = await _sealed(store, 0, "entries", place)
        first = n * TILE_WIDTH
        async with store.glance() as look:
            rows = await log.records(look, first=first, end=first + width)
        if len(rows) != width:
            raise EvidenceError("NB-3030", index=first + len(rows))
        return _tile(entry_bundle([record for _, record in rows]), width, private=True)

    @router.get("/tile/{level}/{place:path}")
    async def hashes(level: str, place: str) -> Response:
        if not _LEVEL.fullmatch(level):
            raise NotFoundError("NB-3093")
        n, width = await _sealed(store, int(level), int(level), place)
        async with store.transaction() as tx:
            return _tile(await tree.tile(tx, int(level), n, width), width)

    return router


async def _sealed(store: Store, level: int, kind: int | str, place: str) -> tuple[int, int]:
    """Return number and width of a tile. Raises `NotFoundError` NB-3093 unless it is signed for."""
    found = _PLACE.fullmatch(place)
    if found is None:
        raise NotFoundError("NB-3093")
    n = int(found[1].replace("x", "").replace("/", "") + found[2])
    width = int(found[3] or TILE_WIDTH)
    async with store.glance() as look:
        newest = await log.newest_checkpoint(look)
    end = (n * TILE_WIDTH + width) << TILE_HEIGHT * level
    one_spelling = tile_path(kind, n, width) == f"tile/{kind}/{place}"
    if newest is None or end > newest[0] or not one_spelling:
        raise NotFoundError("NB-3093")
    return n, width


def _tile(content: bytes, width: int, *, private: bool = False) -> Response:
    cached = _FOR_EVER if width == TILE_WIDTH else "no-cache"
    headers = {"Cache-Control": cached.replace("public", "private") if private else cached}
    return Response(content, media_type="application/octet-stream", headers=headers)
