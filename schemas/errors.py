"""One root for every error of the project, and the words people read.

An error carries a code `NB-nnnn`; its sentence and its fix stand once, in `codes/errors.json`, so
that command line, HTTP and reports say the same. Branches of the tree answer "what now?":

    NoticeBusError
    ├── RejectedError      the input is wrong and will stay wrong: answer it, never retry it
    ├── NotFoundError      no such thing here
    ├── NotAllowedError    this person or party may not do that
    ├── ConflictError      it was done differently already, or the plan is stale
    ├── PolicyError        a limit that a policy sets is breached
    ├── EvidenceError      bytes and proof disagree: stop and alarm
    └── UnavailableError   a peer (store, bus) cannot be reached: try again, nothing was lost
"""

import json
from functools import cache
from importlib.resources import files
from typing import NamedTuple


class Wording(NamedTuple):
    """What people read for one code: a plain sentence and what to do about it."""

    sentence: str
    fix: str


@cache
def wordings() -> dict[str, Wording]:
    """Return every known code with its words, from `codes/errors.json`."""
    text = files("schemas").joinpath("codes/errors.json").read_text(encoding="utf-8")
    return {code: Wording(**words) for code, words in json.loads(text)["codes"].items()}


class NoticeBusError(Exception):
    """Root of all errors; `code` names the words, `where` fills them and locates the fault.

    Values in `where` reach logs and screens: they must hold no personal data.
    """

    def __init__(self, code: str, **where: object) -> None:
        self.code = code
        self.where = where
        super().__init__(f"{code} {self.sentence}")

    @property
    def sentence(self) -> str:
        """The plain sentence of this code, with its places filled in."""
        return wordings()[self.code].sentence.format_map(self.where)

    @property
    def fix(self) -> str:
        """What a person can do about it."""
        return wordings()[self.code].fix.format_map(self.where)


class RejectedError(NoticeBusError):
    """The input is wrong and will stay wrong: answer it, never retry it."""


class NotFoundError(NoticeBusError):
    """There is no such thing here."""


class NotAllowedError(NoticeBusError):
    """This person or party may not do that."""


class ConflictError(NoticeBusError):
    """It was done differently already, the plan is stale, or somebody else holds the lease."""


class PolicyError(NoticeBusError):
    """A limit that a policy sets is breached."""


class EvidenceError(NoticeBusError):
    """Bytes and proof disagree: stop and alarm, believe nothing that rests on them."""


class UnavailableError(NoticeBusError):
    """A peer cannot be reached: try again later, nothing was lost."""
