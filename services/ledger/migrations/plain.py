"""Run a revision's plain SQL: what both agencies have, then what the agency has for itself."""

from pathlib import Path

from alembic import context, op

SQL = Path(__file__).resolve().parent / "sql"


def apply(revision: str) -> None:
    """Run `sql/<revision>_foundation.sql` and `sql/<revision>_<agency>.sql`, where they exist."""
    agency = context.config.attributes["agency"]
    # Without parameters the driver takes several statements at once, and percent signs as they are.
    connection = op.get_bind().execution_options(no_parameters=True)
    for name in ("foundation", agency):
        file = SQL / f"{revision}_{name}.sql"
        if file.exists():
            connection.exec_driver_sql(file.read_text(encoding="utf-8"))
