"""Replay as people run it: sources, approval, pause and progress of each run."""

from services.ledger.migrations.plain import apply

revision = "0002"
down_revision = "0001"
branch_labels = None
depends_on = None


def upgrade() -> None:
    """Add to the tables of the agency that the migration runs for."""
    apply(revision)
