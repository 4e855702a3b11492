"""Keys that were retired or revoked, and where each ends."""

from services.ledger.migrations.plain import apply

revision = "0012"
down_revision = "0011"
branch_labels = None
depends_on = None


def upgrade() -> None:
    """Add to the tables of the agency that the migration runs for."""
    apply(revision)
