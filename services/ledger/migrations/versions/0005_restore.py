"""Backups, adopted restores and what was moved to archive files."""

from services.ledger.migrations.plain import apply

revision = "0005"
down_revision = "0004"
branch_labels = None
depends_on = None


def upgrade() -> None:
    """Add to the tables of the agency that the migration runs for."""
    apply(revision)
