"""What convinces people who do not trust us: who may read the records."""

from services.ledger.migrations.plain import apply

revision = "0007"
down_revision = "0006"
branch_labels = None
depends_on = None


def upgrade() -> None:
    """Add to the tables of the agency that the migration runs for."""
    apply(revision)
