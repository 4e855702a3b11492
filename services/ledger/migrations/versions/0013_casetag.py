"""The key of a third witness, beside its cosignatures; tags of cases are in records alone."""

from services.ledger.migrations.plain import apply

revision = "0013"
down_revision = "0012"
branch_labels = None
depends_on = None


def upgrade() -> None:
    """Add to the tables of the agency that the migration runs for."""
    apply(revision)
