"""How a command ends: the one place that turns errors into exit codes and words.

| code | meaning                                   | code | meaning                          |
| ---- | ----------------------------------------- | ---- | -------------------------------- |
| 0    | done (an empty list is done)              | 6    | integrity check failed           |
| 1    | failed                                    | 7    | bus or store not reachable       |
| 2    | wrong usage or input                      | 8    | policy breached (`--fail-on`)    |
| 3    | not found                                 | 9    | conflict: done differently, held |
| 4    | not allowed                               | 130  | interrupted                      |
| 5    | partly done (some rows rejected)          |      |                                  |
"""

import sys
from enum import IntEnum

from schemas import errors


class ExitCode(IntEnum):
    """What the shell sees."""

    DONE = 0
    FAILED = 1
    WRONG_INPUT = 2
    NOT_FOUND = 3
    NOT_ALLOWED = 4
    PARTLY_DONE = 5
    INTEGRITY = 6
    UNREACHABLE = 7
    POLICY = 8
    CONFLICT = 9
    INTERRUPTED = 130


BY_BRANCH: dict[type[errors.NoticeBusError], ExitCode] = {
    errors.RejectedError: ExitCode.WRONG_INPUT,
    errors.NotFoundError: ExitCode.NOT_FOUND,
    errors.NotAllowedError: ExitCode.NOT_ALLOWED,
    errors.EvidenceError: ExitCode.INTEGRITY,
    errors.UnavailableError: ExitCode.UNREACHABLE,
    errors.PolicyError: ExitCode.POLICY,
    errors.ConflictError: ExitCode.CONFLICT,
    errors.NoticeBusError: ExitCode.FAILED,
}


def exit_code_of(error: errors.NoticeBusError) -> ExitCode:
    """Return the exit code of an error by its branch."""
    return next(BY_BRANCH[branch] for branch in type(error).__mro__ if branch in BY_BRANCH)


def tell(error: errors.NoticeBusError) -> None:
    """Write code, sentence and fix to standard error."""
    say(f"{error.code}: {error.sentence}", f"  fix: {error.fix}")


def say(*lines: str) -> None:
    """Write remarks for people to standard error, control characters made visible."""
    for line in lines:
        sys.stderr.write("".join(c if c.isprintable() else "\ufffd" for c in line) + "\n")
