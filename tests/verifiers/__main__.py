"""Run every verifier on ours and on spoilt copies; exit 1 when one is missing or says otherwise."""

import sys
import tempfile
import time
from collections.abc import Callable
from concurrent.futures import ThreadPoolExecutor
from dataclasses import dataclass
from pathlib import Path

from tests.verifiers import environments, material
from tests.verifiers.environments import MissingError, Ready

ACCEPTED, REFUSED = 0, 3
AT_ONCE = 3

_LOG = ("a byte of the record", "a hash of its inclusion proof")
_NOTE = ("the checkpoint's size", "the checkpoint's signature")
_OLDER = ("a hash of the consistency proof", "the older checkpoint's size")
_WITNESS = ("the cosignature", "the cosignature's time", "the cosigned size")
_PROOF = (
    "the tlog-proof's cosignature",
    "the tlog-proof's time",
    "the tlog-proof's index",
    "a hash of the tlog-proof",
)
_JOSE = (
    "a character of the envelope",
    "a character of its signature",
    "a character of the ciphertext",
    "a character of the content key",
)
_BODY = ("a member of the notice", "a member of the receipts")
_EVENT = ("the event's type", "the event's source")


@dataclass(frozen=True, slots=True)
class Tool:
    """A verifier that nobody here wrote: where it comes from, and what it must refuse."""

    title: str
    install: Callable[[str, Path], Ready]
    name: str
    refuses: tuple[str, ...]


TOOLS = (
    Tool(
        "aics-tlog (PyPI)",
        environments.pypi_newer,
        "aics_tlog",
        (*_LOG, *_NOTE, *_OLDER, *_WITNESS, "a byte of a full hash tile", "a byte of an entry"),
    ),
    Tool(
        "metamorphic-log (PyPI)",
        environments.pypi,
        "metamorphic_log",
        (*_LOG, *_NOTE, *_OLDER),
    ),
    Tool("sigstore (PyPI)", environments.pypi, "sigstore", (*_LOG, *_NOTE)),
    Tool(
        "tlog-scales (PyPI)",
        environments.pypi,
        "tlog_scales",
        (
            *_NOTE,
            *_WITNESS,
            "the older checkpoint's size",
            "a byte of a full hash tile",
            "a byte of an entry",
        ),
    ),
    Tool(
        "proofbundle (PyPI)",
        environments.pypi,
        "proofbundle",
        ("a byte of the record", *_PROOF),
    ),
    Tool("joserfc (PyPI)", environments.pypi, "joserfc", _JOSE),
    Tool("cloudevents (PyPI)", environments.pypi, "cloudevents", _EVENT),
    Tool("jsonschema (PyPI)", environments.pypi, "jsonschema", _BODY),
    Tool(
        "rfc8785 (PyPI)",
        environments.pypi,
        "rfc8785",
        ("a blank in the record", "the order in the notice"),
    ),
    Tool("@sigstore/verify (npm)", environments.npm, "sigstore_verify", (*_LOG, *_NOTE)),
    Tool("jose (npm)", environments.npm, "jose", _JOSE),
    Tool("cloudevents (npm)", environments.npm, "cloudevents", _EVENT),
    Tool("ajv (npm)", environments.npm, "ajv", _BODY),
    Tool(
        "@asyncapi/parser (npm)",
        environments.npm,
        "asyncapi",
        ("a reference of the description", "the description's version"),
    ),
    Tool("jose (Debian)", environments.debian, "jose", _JOSE),
    Tool(
        "openssl (Debian)",
        environments.command,
        "openssl",
        (*_NOTE, *_WITNESS, "a character of the envelope", "a character of its signature"),
    ),
)


@dataclass(frozen=True, slots=True)
class Outcome:
    """What one verifier said; `faults` is empty if it accepts ours and refuses every other."""

    tool: Tool
    faults: tuple[str, ...]
    seconds: float


def judge(tool: Tool, work: Path, true: Path, spoilt: dict[str, Path]) -> Outcome:
    """Install a verifier and hold it against ours and against the copies that it must refuse."""
    began = time.perf_counter()
    faults: list[str] = []
    try:
        ready = tool.install(tool.name, work / f"{tool.install.__name__}-{tool.name}")
        for title, folder, expected in [
            ("ours", true, ACCEPTED),
            *((change, spoilt[change], REFUSED) for change in tool.refuses),
        ]:
            done = ready.run(folder)
            if done.returncode != expected:
                faults.append(
                    f"{title}: exit {done.returncode}, not {expected}\n{done.stdout.strip()}"
                )
    except MissingError as error:
        faults.append(f"missing: {error}")
    return Outcome(tool, tuple(faults), time.perf_counter() - began)


def main() -> int:
    """Make the material, run all verifiers, print one line for each; returns the exit code."""
    began = time.perf_counter()
    with tempfile.TemporaryDirectory(prefix="noticebus-verifiers-") as folder:
        work = Path(folder)
        # Containers read the material as somebody else.
        work.chmod(0o755)
        true = work / "true"
        material.make(true)
        spoilt = {
            change: work / f"spoilt-{number}" for number, change in enumerate(material.SPOILT)
        }
        for change, copy in spoilt.items():
            material.spoil(true, change, copy)
        with ThreadPoolExecutor(AT_ONCE) as pool:
            outcomes = list(pool.map(lambda tool: judge(tool, work, true, spoilt), TOOLS))
    for outcome in outcomes:
        mark = "✗" if outcome.faults else "✓"
        refuses = len(outcome.tool.refuses)
        print(
            f"{mark} {outcome.tool.title}: accepts ours, refuses {refuses} of {refuses} copies,"
            f" {outcome.seconds:.1f} s"
            if not outcome.faults
            else f"{mark} {outcome.tool.title}: {len(outcome.faults)} faults"
        )
        for fault in outcome.faults:
            print("    " + fault.replace("\n", "\n      "))
    failed = sum(bool(outcome.faults) for outcome in outcomes)
    print(f"{len(outcomes)} verifiers in {time.perf_counter() - began:.0f} s")
    print(f"{len(outcomes) - failed} passed, {failed} failed")
    return 1 if failed else 0


if __name__ == "__main__":
    sys.exit(main())
