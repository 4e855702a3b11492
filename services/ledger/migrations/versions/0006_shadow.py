"""Contents that records bind, so that state can be made again from both."""

from services.ledger.migrations.plain import apply

revision = "0006"
down_revision = "0005"
branch_labels = None
depends_on = None


def upgrade() -> None:
    """Add to the tables of the agency that the migration runs for."""
    apply(revision)
