"""What the agencies tell each other of their logs: heads and cosignatures."""

from services.ledger.migrations.plain import apply

revision = "0008"
down_revision = "0007"
branch_labels = None
depends_on = None


def upgrade() -> None:
    """Add to the tables of the agency that the migration runs for."""
    apply(revision)
