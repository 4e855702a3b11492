"""The audited store, the exchange, and what each agency keeps for itself."""

from pathlib import Path

from alembic import context, op

revision = "0001"
down_revision = None
branch_labels = None
depends_on = None

SQL = Path(__file__).resolve().parent.parent / "sql"


def upgrade() -> None:
    """Make all tables of the agency that the migration runs for."""
    agency = context.config.attributes["agency"]
    # Without parameters the driver takes several statements at once, and percent signs as they are.
    connection = op.get_bind().execution_options(no_parameters=True)
    for name in ("foundation", agency):
        connection.exec_driver_sql((SQL / f"0001_{name}.sql").read_text(encoding="utf-8"))
