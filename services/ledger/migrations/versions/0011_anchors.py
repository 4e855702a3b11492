"""Anchors, forks and rollbacks, open until a person resolves them."""

from services.ledger.migrations.plain import apply

revision = "0011"
down_revision = "0010"
branch_labels = None
depends_on = None


def upgrade() -> None:
    """Add to the tables of the agency that the migration runs for."""
    apply(revision)
