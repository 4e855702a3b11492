"""What moved to archive files, and cases named after a restore."""

from services.ledger.migrations.plain import apply

revision = "0014"
down_revision = "0013"
branch_labels = None
depends_on = None


def upgrade() -> None:
    """Add to the tables of the agency that the migration runs for."""
    apply(revision)
