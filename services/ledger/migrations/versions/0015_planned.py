"""What a run of a replay is of, and dead letters that were vouched for later."""

from services.ledger.migrations.plain import apply

revision = "0015"
down_revision = "0014"
branch_labels = None
depends_on = None


def upgrade() -> None:
    """Add to the tables of the agency that the migration runs for."""
    apply(revision)
