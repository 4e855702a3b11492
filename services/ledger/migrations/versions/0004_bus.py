"""What a rebuilt bus needs to know."""

from services.ledger.migrations.plain import apply

revision = "0004"
down_revision = "0003"
branch_labels = None
depends_on = None


def upgrade() -> None:
    """Add to the tables of the agency that the migration runs for."""
    apply(revision)
