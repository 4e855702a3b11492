"""Describe the bus for the developers of both agencies: AsyncAPI 3, generated.

FastStream writes the document from the declared publishers and subscribers, which gives servers,
channels and operations. What it cannot know is put in afterwards: that an entry is a signed
envelope, which kinds travel in which lane, and the schema of each kind's content, by reference to
the JSON Schema files beside the document. `schemas/json/asyncapi.yaml` is this module's output (a
test fails on drift); `python -m services.bus.asyncapi` prints it, and needs PyYAML.
"""

import json
import sys
from collections.abc import Sequence
from typing import Any

from faststream.redis import RedisBroker, StreamSub
from faststream.specification.asyncapi import AsyncAPI

from schemas.catalog import CATALOG
from schemas.envelope import CONTROL_KINDS, MESSAGE_BYTES_MAX, Kind, Lane, stream_name
from services.bus.entry import JWS_FIELD

Json = dict[str, Any]

TITLE = "noticebus"
VERSION = "1.0.0"
DESCRIPTION = (
    "Audited failure-to-appear notices between ICE and HHS over Redis Streams. Every entry has one "
    f"field, `{JWS_FIELD.decode()}`: a compact JWS (ES256, header exactly alg, kid, typ) of at "
    f"most {MESSAGE_BYTES_MAX} bytes, whose payload is a CloudEvents 1.0.2 JSON object in "
    "canonical form (RFC 8785). Outside of the control lane its data is a compact JWE "
    "(ECDH-ES+A256KW, A256GCM) to the recipient. Nothing else in an entry is trusted."
)
SAID_BY = {
    "ice": (Kind.FTA, Kind.NILRETURN),
    "hhs": (Kind.ACKNOWLEDGEMENT, Kind.DISPOSITION, Kind.ACTION, Kind.OUTCOME),
}
DIRECTIONS = (("ice", "hhs"), ("hhs", "ice"))
LANE_PURPOSE = {
    Lane.LIVE: "today's messages",
    Lane.BACKLOG: "a first load or a backfill, so that it never delays today's messages",
    Lane.CONTROL: "what machines answer; signed, in clear, without personal data, one partition",
}

UUID = {"type": "string", "format": "uuid"}
HASH = {"type": "string", "pattern": "^[A-Za-z0-9_-]{43}$", "description": "SHA-256, base64url"}
ENVELOPE: Json = {
    "title": "Envelope",
    "description": "The CloudEvents object that the JWS signs, without its data.",
    "type": "object",
    "properties": {
        "specversion": {"const": "1.0"},
        "id": {**UUID, "description": "The message id, UUIDv7; the key of deduplication."},
        "type": {"type": "string", "pattern": r"^gov\.noticebus\.[a-z]{1,32}\.v[1-9][0-9]{0,3}$"},
        "source": {
            "type": "string",
            "pattern": "^//[a-z0-9][a-z0-9.-]{0,119}/noticebus/[a-z0-9-]{1,32}$",
            "description": "The sender; the owner of the key that signed.",
        },
        "subject": {**UUID, "description": "The notice id."},
        "time": {
            "type": "string",
            "format": "date-time",
            "description": "When the message was made. Nothing is decided by it.",
        },
        "sequence": {
            "type": "string",
            "pattern": "^[0-9]{20}$",
            "description": "Gapless from 1 for each stream and generation.",
        },
        "correlationid": UUID,
        "causationid": UUID,
        "recipient": {"type": "string", "pattern": "^[a-z0-9-]{1,32}$"},
        "lane": {"enum": [str(lane) for lane in Lane]},
        "partition": {"type": "integer", "minimum": 0},
        "generation": {"type": "integer", "minimum": 1},
        "revision": {
            "type": "integer",
            "minimum": 1,
            "description": "Gapless from 1 for each notice and direction; n is applied after n-1.",
        },
        "commitment": {
            **HASH,
            "description": "SHA-256 over the salt in the plaintext and the canonical body.",
        },
        "casetag": {
            **HASH,
            "description": "HMAC-SHA-256 of the A-number under an index key that both agencies"
            " share; notices alone bear it, and only where there is such a key.",
        },
        "dataschema": {"type": "string"},
        "datacontenttype": {"enum": ["application/jose", "application/json"]},
        "data": {},
    },
    "required": [
        "correlationid",
        "data",
        "datacontenttype",
        "dataschema",
        "generation",
        "id",
        "lane",
        "partition",
        "recipient",
        "sequence",
        "source",
        "specversion",
        "time",
        "type",
    ],
    "additionalProperties": False,
}


def document() -> Json:
    """Return the AsyncAPI document as JSON values."""
    skeleton: Json = (
        AsyncAPI(_declared(), title=TITLE, version=VERSION, description=DESCRIPTION)
        .to_specification()
        .to_jsonable()
    )
    return {
        "asyncapi": skeleton["asyncapi"],
        "info": skeleton["info"],
        "defaultContentType": "application/cloudevents+json",
        "servers": {"bus": _server(skeleton)},
        "channels": {name: _channel(name, skeleton) for name in _channel_names()},
        "operations": {
            name: _operation(name, operation, skeleton)
            for name, operation in sorted(skeleton["operations"].items())
        },
        "components": {
            "messages": {_key(kind, major): _message(kind, major) for kind, major in _kinds()},
            "schemas": {
                "envelope": ENVELOPE,
                **{f"{_key(*known)}.envelope": _envelope(*known) for known in _kinds()},
            },
        },
    }


def text() -> str:
    """Return the document as it stands in `schemas/json/asyncapi.yaml`."""
    # Wanted by developers of noticebus alone, so it is not among what gets installed.
    import yaml

    written: str = yaml.safe_dump(
        # Copied, so that what occurs twice is written twice and not as an alias.
        json.loads(json.dumps(document())),
        sort_keys=False,
        allow_unicode=True,
        width=100,
        default_flow_style=False,
    )
    return written


def _declared() -> RedisBroker:
    """Return a broker that is never started, with all that the two agencies do on the bus."""
    broker = RedisBroker("redis://bus:6379")
    for sender, recipient in DIRECTIONS:
        for lane in Lane:
            stream = stream_name(sender, recipient, lane, 0)
            name = f"{sender}.{recipient}.{lane}"
            broker.publisher(
                stream=StreamSub(stream), title=f"{name}.send", schema=bytes, description=sender
            )
            subscriber = broker.subscriber(
                stream=StreamSub(stream, group=recipient, consumer=f"{recipient}-0", batch=True),
                title=f"{name}.receive",
                description=recipient,
            )
            subscriber(_taken)
    return broker


async def _taken(envelopes: list[bytes]) -> None:
    """Stands for the recipient's delivery."""


def _kinds() -> list[tuple[Kind, int]]:
    return list(CATALOG.models)


def _key(kind: Kind, major: int) -> str:
    return f"{kind}.v{major}"


def _channel_names() -> list[str]:
    return [f"{sender}.{recipient}.{lane}" for sender, recipient in DIRECTIONS for lane in Lane]


def _server(skeleton: Json) -> Json:
    (server,) = skeleton["servers"].values()
    return {
        "host": server["host"],
        "protocol": server["protocol"],
        "description": "Redis 7 or newer, durable (AOF always); each agency has a user of its own.",
    }


def _channel(name: str, skeleton: Json) -> Json:
    sender, recipient, lane = name.split(".")
    read, written = (skeleton["channels"][f"{name}.{way}"] for way in ("receive", "send"))
    first = read["address"]
    partitioned = lane != Lane.CONTROL
    said = sorted(CONTROL_KINDS) if not partitioned else SAID_BY[sender]
    stream: Json = {"description": "The stream's name, its braces included.", "default": first}
    if partitioned:
        stream["description"] += (
            " The last number is the partition: SHA-256 of the notice id's 16 bytes, its first 8"
            " bytes as a big-endian number, modulo the partitions in the sender's party file."
        )
        stream["examples"] = [first, stream_name(sender, recipient, lane, 1)]
    return {
        # Redis Cluster's braces would be taken for a parameter of that name.
        "address": "{stream}",
        "title": f"{sender} to {recipient}, {lane}",
        "description": f"From {sender} to {recipient}: {LANE_PURPOSE[Lane(lane)]}.",
        "servers": [{"$ref": "#/servers/bus"}],
        "messages": {
            _key(kind, major): {"$ref": f"#/components/messages/{_key(kind, major)}"}
            for kind, major in _kinds()
            if kind in said
        },
        "parameters": {"stream": stream},
        "x-redis": {
            "type": "stream",
            "field": JWS_FIELD.decode(),
            "write": written["bindings"]["redis"]["method"],
            "read": read["bindings"]["redis"]["method"],
            "group": read["bindings"]["redis"]["groupName"],
        },
    }


def _operation(name: str, operation: Json, skeleton: Json) -> Json:
    channel, _, way = name.rpartition(".")
    agency = skeleton["channels"][name]["description"]
    messages = _channel(channel, skeleton)["messages"]
    return {
        "action": operation["action"],
        "title": f"{agency} {way}s",
        "channel": {"$ref": f"#/channels/{channel}"},
        "messages": [{"$ref": f"#/channels/{channel}/messages/{key}"} for key in messages],
        "x-agency": agency,
    }


def _message(kind: Kind, major: int) -> Json:
    model = CATALOG.models[kind, major]
    return {
        "name": _type(kind, major),
        "title": model.__name__,
        "summary": _first_sentence(model.__doc__ or ""),
        "contentType": "application/cloudevents+json",
        "correlationId": {"location": "$message.payload#/correlationid"},
        "payload": {"$ref": f"#/components/schemas/{_key(kind, major)}.envelope"},
    }


def _envelope(kind: Kind, major: int) -> Json:
    body: Json = {"$ref": f"./{_key(kind, major)}.json"}
    plain = kind in CONTROL_KINDS
    data: Json = body
    if not plain:
        data = {
            "type": "string",
            "contentMediaType": "application/jose",
            "description": "A compact JWE to the recipient.",
            "x-plaintext": {
                "type": "object",
                "properties": {"payload": body, "salt": HASH},
                "required": ["payload", "salt"],
                "additionalProperties": False,
            },
        }
    needed: Sequence[str] = () if plain else ("commitment",)
    return {
        "allOf": [
            {"$ref": "#/components/schemas/envelope"},
            {
                "type": "object",
                "properties": {
                    "type": {"const": _type(kind, major)},
                    "lane": {"enum": ["control"] if plain else ["live", "backlog"]},
                    "datacontenttype": {
                        "const": "application/json" if plain else "application/jose"
                    },
                    "data": data,
                },
                **({"required": list(needed)} if needed else {}),
            },
        ]
    }


def _type(kind: Kind, major: int) -> str:
    return f"gov.noticebus.{kind}.v{major}"


def _first_sentence(words: str) -> str:
    return " ".join(words.split()).partition(". ")[0].rstrip(".") + "."


if __name__ == "__main__":
    sys.stdout.write(text())
