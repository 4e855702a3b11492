"""Bring a database to the schema this build needs, by Alembic."""

from pathlib import Path

import psycopg
from alembic import command
from alembic.config import Config
from sqlalchemy import create_engine, text
from sqlalchemy.exc import DBAPIError
from sqlalchemy.pool import NullPool

from schemas.errors import ConflictError, UnavailableError
from services.ledger.store.connection import border, connection_settings

MIGRATIONS = Path(__file__).resolve().parent.parent / "migrations"
# Migrations may rewrite tables; two that start together wait for each other.
STATEMENT_SECONDS = 600
LOCK_SECONDS = 120
_LOCK = 0x6E62_6D69_6772

# Which agency's tables a database holds; nothing before the first migration.
_AGENCY = "SELECT obj_description(to_regclass('alembic_version'), 'pg_class')"


def migrate(url: str, agency: str) -> None:
    """Run the migrations that a database lacks, all in one transaction; safe to run twice.

    Raises `UnavailableError` when the store does not answer, `ConflictError` NB-5011 when the
    database is another agency's. Blocks: call it from a thread where an event loop runs.
    """
    settings = connection_settings(url)
    engine = create_engine(
        "postgresql+psycopg://",
        creator=lambda: psycopg.connect(**settings),
        poolclass=NullPool,
    )
    config = Config()
    # A percent sign in the path would be read as the beginning of a placeholder.
    config.set_main_option("script_location", str(MIGRATIONS).replace("%", "%%"))
    config.set_main_option("path_separator", "os")
    try:
        with border(), engine.begin() as connection:
            for statement in (
                f"SET LOCAL statement_timeout = '{STATEMENT_SECONDS}s'",
                f"SET LOCAL lock_timeout = '{LOCK_SECONDS}s'",
                f"SELECT pg_advisory_xact_lock({_LOCK})",
            ):
                connection.execute(text(statement))
            found = connection.execute(text(_AGENCY)).scalar()
            if found is not None and found != agency:
                raise ConflictError("NB-5011", found=found, agency=agency)
            config.attributes.update(connection=connection, agency=agency)
            command.upgrade(config, "head")
            if found is None:
                connection.execute(text(f"COMMENT ON TABLE alembic_version IS '{agency}'"))
    except DBAPIError as error:
        if isinstance(error.orig, psycopg.OperationalError | psycopg.InterfaceError):
            reason = str(error.orig).splitlines()[0]
            raise UnavailableError("NB-5001", reason=reason) from error
        raise
