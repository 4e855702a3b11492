"""Errors as the services raise them: the border's tree, under the services' own address."""

from schemas.errors import (
    ConflictError,
    EvidenceError,
    NotAllowedError,
    NotFoundError,
    NoticeBusError,
    PolicyError,
    RejectedError,
    UnavailableError,
    Wording,
    wordings,
)

__all__ = [
    "ConflictError",
    "EvidenceError",
    "NotAllowedError",
    "NotFoundError",
    "NoticeBusError",
    "PolicyError",
    "RejectedError",
    "UnavailableError",
    "Wording",
    "wordings",
]
