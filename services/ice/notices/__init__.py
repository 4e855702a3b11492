"""Notices as people work with them: send, decide, correct, withdraw, list, look, trace.

The same child and hearing is one notice for life: sending it again says which one it is and sends
nothing. Every act is one transaction with its ledger record, also one that is refused. Lists mask
the A-number; seeing a child's identity is an act of its own, and recorded.
"""

from services.ice.notices.by_hand import Sent, send
from services.ice.notices.correcting import Change, Correction, correct, propose
from services.ice.notices.decisions import Decision, confirm, dismiss, withdraw
from services.ice.notices.views import (
    STATES,
    NoticeDetail,
    NoticeItem,
    listed,
    refused,
    resolve,
    shown,
    traced,
)

__all__ = [
    "STATES",
    "Change",
    "Correction",
    "Decision",
    "NoticeDetail",
    "NoticeItem",
    "Sent",
    "confirm",
    "correct",
    "dismiss",
    "listed",
    "propose",
    "refused",
    "resolve",
    "send",
    "shown",
    "traced",
    "withdraw",
]
