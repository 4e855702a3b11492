"""Dead letters in bulk: groups, redrives with their history, discards, corrections."""

from services.ledger.migrations.plain import apply

revision = "0003"
down_revision = "0002"
branch_labels = None
depends_on = None


def upgrade() -> None:
    """Add to the tables of the agency that the migration runs for."""
    apply(revision)
