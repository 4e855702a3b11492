"""What each agency's Redis user may do, as lines of an ACL file: exactly what this package sends.

| where | commands | by |
| --- | --- | --- |
| anywhere | PING; CLIENT SETINFO (the driver's name; needs Redis 7.2) | `connection`, FastStream |
| own streams | XADD, XTRIM, XRANGE, XLEN, XINFO, XPENDING | `publisher`, `status` |
| the peer's streams to it | XREADGROUP, XACK, XCLAIM, XPENDING, XGROUP CREATE and DELCONSUMER, |
| | XRANGE, XLEN, XINFO | `subscription`, `pending`, `status` |
| streams of replays, `{replay.*}` | XADD, XRANGE, XLEN, XINFO STREAM | `history` |

HELLO and AUTH need no grant. Two selectors keep the lists apart: nobody can write an entry into a
stream that it reads, or take one from a stream that it writes. Reading with a group needs write
access in Redis' eyes; of the commands granted there, none adds or changes an entry.
Source: https://redis.io/docs/latest/operate/oss_and_stack/management/security/acl/
"""

from collections.abc import Mapping

OWN_COMMANDS = (
    "xadd", "xtrim", "xrange", "xlen", "xpending",
    "xinfo|stream", "xinfo|groups", "xinfo|consumers",
)  # fmt: skip
PEER_COMMANDS = (
    "xreadgroup", "xack", "xclaim", "xpending", "xgroup|create", "xgroup|delconsumer",
    "xrange", "xlen", "xinfo|stream", "xinfo|groups", "xinfo|consumers",
)  # fmt: skip
# Nobody delivers what stands there: envelopes, as encrypted as on their own streams.
REPLAY_COMMANDS = ("xadd", "xrange", "xlen", "xinfo|stream")
ANYWHERE_COMMANDS = ("ping", "client|setinfo")


def acl_lines(password_hashes: Mapping[str, str]) -> list[str]:
    """Return one line for each agency, given the SHA-256 (hex) of each one's password.

    Every lane and every partition between two agencies is included, so that more partitions need
    no new file. The line for the `default` user is the caller's, and should switch it off.
    """
    return [
        _line(agency, [peer for peer in password_hashes if peer != agency], password)
        for agency, password in password_hashes.items()
    ]


def _line(agency: str, peers: list[str], password: str) -> str:
    selectors = []
    for peer in peers:
        selectors.append(_selector(f"{{{agency}.{peer}.*}}:out", OWN_COMMANDS))
        selectors.append(_selector(f"{{{peer}.{agency}.*}}:out", PEER_COMMANDS))
    selectors.append(_selector("{replay.*}", REPLAY_COMMANDS))
    return " ".join(
        [
            f"user {agency} on #{password.removeprefix('#')} resetkeys resetchannels -@all",
            _granted(ANYWHERE_COMMANDS),
            *selectors,
        ]
    )


def _selector(keys: str, commands: tuple[str, ...]) -> str:
    return f"(~{keys} -@all {_granted(commands)})"


def _granted(commands: tuple[str, ...]) -> str:
    return " ".join(f"+{command}" for command in commands)
