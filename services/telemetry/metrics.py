"""The numbers an operator watches, without identities: no notice, person or A-number is a label.

Names follow Prometheus: base units, `_total` for counters. They live in a registry of our own, so
that `/metrics` shows what this page names and the process itself, nothing a library slipped in.
Counters are counted where it happens; gauges are read from store and bus when they are asked for
(`services.exchange.gauges`).
"""

from prometheus_client import (
    CollectorRegistry,
    Counter,
    Gauge,
    Histogram,
    PlatformCollector,
    ProcessCollector,
)

REGISTRY = CollectorRegistry()
ProcessCollector(registry=REGISTRY)
PlatformCollector(registry=REGISTRY)

MESSAGES_PUBLISHED = Counter(
    "noticebus_messages_published_total",
    "Messages handed to the bus for the first time.",
    ("lane", "kind"),
    registry=REGISTRY,
)
MESSAGES_REPUBLISHED = Counter(
    "noticebus_messages_republished_total",
    "Stored messages handed to the bus once more, by cause.",
    ("cause",),
    registry=REGISTRY,
)
MESSAGES_RECEIVED = Counter(
    "noticebus_messages_received_total",
    "Messages taken: verified, recorded and applied.",
    ("lane", "kind"),
    registry=REGISTRY,
)
MESSAGES_REFUSED = Counter(
    "noticebus_messages_refused_total",
    "Messages refused, by error code.",
    ("code",),
    registry=REGISTRY,
)
ATTEMPTS_FAILED = Counter(
    "noticebus_attempts_failed_total",
    "Entries that failed when tried alone.",
    ("stream",),
    registry=REGISTRY,
)
UNAUTHENTICATED = Counter(
    "noticebus_unauthenticated_total",
    "Entries that nobody vouches for, by cause.",
    ("cause",),
    registry=REGISTRY,
)
OUTAGES = Counter(
    "noticebus_outages_total",
    "Times a peer (bus or store) was found away.",
    ("peer",),
    registry=REGISTRY,
)
OUTBOX_UNSENT = Gauge(
    "noticebus_outbox_unsent",
    "Accepted messages that have no sequence yet.",
    registry=REGISTRY,
)
UNANSWERED = Gauge(
    "noticebus_unanswered",
    "Messages sent and not answered.",
    registry=REGISTRY,
)
OVERDUE = Gauge(
    "noticebus_overdue",
    "Messages whose answer is overdue.",
    registry=REGISTRY,
)
OLDEST_UNANSWERED_SECONDS = Gauge(
    "noticebus_oldest_unanswered_seconds",
    "Age of the oldest message without an answer; 0 when there is none.",
    registry=REGISTRY,
)
STREAM_LAG = Gauge(
    "noticebus_stream_lag",
    "Entries of a stream that its group has not read.",
    ("stream",),
    registry=REGISTRY,
)
STREAM_PENDING = Gauge(
    "noticebus_stream_pending",
    "Entries of a stream given to a consumer and not acknowledged.",
    ("stream",),
    registry=REGISTRY,
)
HELD = Gauge(
    "noticebus_held",
    "Messages that wait for an earlier revision of their notice.",
    registry=REGISTRY,
)
DEAD_LETTERS = Gauge(
    "noticebus_dead_letters",
    "Entries set aside that wait for a person.",
    registry=REGISTRY,
)
GAP_SEQUENCES = Gauge(
    "noticebus_gap_sequences",
    "Sequences that are missing below the highest that arrived.",
    registry=REGISTRY,
)
LEDGER_SIZE = Gauge(
    "noticebus_ledger_size",
    "Records under the newest checkpoint.",
    registry=REGISTRY,
)
LEDGER_UNSEALED = Gauge(
    "noticebus_ledger_unsealed",
    "Committed records that no checkpoint covers yet.",
    registry=REGISTRY,
)
NOT_COSIGNED_SECONDS = Gauge(
    "noticebus_not_cosigned_seconds",
    "Age of our oldest checkpoint that the other agency has not cosigned; 0 when there is none.",
    registry=REGISTRY,
)
SEAL_SECONDS = Histogram(
    "noticebus_seal_seconds",
    "Time to seal one batch of records, commit included.",
    buckets=(0.002, 0.005, 0.01, 0.02, 0.05, 0.1, 0.2, 0.5, 1, 2, 5),
    registry=REGISTRY,
)
TAKE_SECONDS = Histogram(
    "noticebus_take_seconds",
    "Time to take one batch of entries, commit included.",
    buckets=(0.002, 0.005, 0.01, 0.02, 0.05, 0.1, 0.2, 0.5, 1, 2, 5),
    registry=REGISTRY,
)
ALARMS = Gauge(
    "noticebus_alarms",
    "Alarms that are open.",
    registry=REGISTRY,
)
CONFLICTS = Gauge(
    "noticebus_conflicts",
    "Pairs of the peer's checkpoints that contradict each other, until a person resolves them.",
    registry=REGISTRY,
)
ALARMS_RAISED = Counter(
    "noticebus_alarms_raised_total",
    "Alarms raised, by error code.",
    ("code",),
    registry=REGISTRY,
)
