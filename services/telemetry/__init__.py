"""What operators see: structured lines on standard error, metrics, health over HTTP.

Never a payload, a key or personal data: `redaction` drops and masks before a line leaves the
process. `metrics` holds counts without identities; `health` tells the truth about the process it
runs in. This is not the audit log, which is the ledger's.

    log = structlog.get_logger()
    log.info("notice delivered", notice_id=notice_id, attempt=2)
"""

import logging
import sys
import threading
from types import TracebackType
from typing import TextIO

import structlog
from structlog.typing import Processor

from services.telemetry.redaction import describe_error, redact

# Chatty at INFO or DEBUG, or writing values of their own.
QUIET = (
    "faststream", "asyncio", "uvicorn.access", "alembic", "sqlalchemy", "psycopg", "redis",
    "httpcore", "httpx",
)  # fmt: skip


def configure(
    *, agency: str, process: str, level: str = "INFO", stream: TextIO | None = None
) -> None:
    """Send every line, ours and the libraries', as one JSON object to standard error.

    Each has `time` (UTC), `level`, `event`, `agency` and `process`. Also catches what would
    otherwise be printed when the process crashes. Safe to call again.
    """
    shared: list[Processor] = [
        structlog.contextvars.merge_contextvars,
        structlog.processors.add_log_level,
        structlog.processors.TimeStamper(fmt="iso", utc=True, key="time"),
        _stamp(agency, process),
        describe_error,
        redact,
    ]
    structlog.configure(
        processors=[
            # Before all else: what nobody is to read is neither stamped nor searched.
            structlog.stdlib.filter_by_level,
            *shared,
            structlog.stdlib.ProcessorFormatter.wrap_for_formatter,
        ],
        logger_factory=structlog.stdlib.LoggerFactory(),
        wrapper_class=structlog.stdlib.BoundLogger,
        cache_logger_on_first_use=True,
    )
    sink = logging.StreamHandler(stream or sys.stderr)
    sink.setFormatter(
        structlog.stdlib.ProcessorFormatter(
            foreign_pre_chain=shared,
            processors=[
                structlog.stdlib.ProcessorFormatter.remove_processors_meta,
                structlog.processors.JSONRenderer(),
            ],
        )
    )
    root = logging.getLogger()
    root.handlers[:] = [sink]
    root.setLevel(level)
    for name in QUIET:
        logging.getLogger(name).setLevel("WARNING")
    sys.excepthook = _crashed
    threading.excepthook = _thread_crashed


def _stamp(agency: str, process: str) -> Processor:
    def stamp(
        logger: object, method: str, line: structlog.typing.EventDict
    ) -> structlog.typing.EventDict:
        line.setdefault("agency", agency)
        line.setdefault("process", process)
        return line

    return stamp


def _crashed(kind: type[BaseException], error: BaseException, trace: TracebackType | None) -> None:
    if issubclass(kind, KeyboardInterrupt):
        return
    structlog.get_logger().critical("process crashed", exc_info=(kind, error, trace))


def _thread_crashed(crash: threading.ExceptHookArgs) -> None:
    if crash.exc_value is not None:
        _crashed(crash.exc_type, crash.exc_value, crash.exc_traceback)
