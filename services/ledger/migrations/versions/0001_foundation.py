"""The audited store, the exchange, and what each agency keeps for itself."""

from services.ledger.migrations.plain import apply

revision = "0001"
down_revision = None
branch_labels = None
depends_on = None


def upgrade() -> None:
    """Make all tables of the agency that the migration runs for."""
    apply(revision)
