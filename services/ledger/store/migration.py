"""Bring a database to the schema this build needs, by Alembic."""

from collections.abc import Callable, Iterator
from contextlib import contextmanager
from pathlib import Path

import psycopg
from alembic import command
from alembic.config import Config
from alembic.runtime.migration import MigrationContext
from alembic.script import ScriptDirectory
from sqlalchemy import Connection, create_engine, text
from sqlalchemy.exc import DBAPIError
from sqlalchemy.pool import NullPool

from schemas.errors import ConflictError, UnavailableError
from services.ledger.store.connection import border, connection_settings

MIGRATIONS = Path(__file__).resolve().parent.parent / "migrations"
# Migrations may rewrite tables; two that start together wait for each other.
STATEMENT_SECONDS = 600
LOCK_SECONDS = 120
REBUILD_SECONDS = 7_200
_LOCK = 0x6E62_6D69_6772

# Which agency's tables a database holds; nothing before the first migration.
_AGENCY = "SELECT obj_description(to_regclass('alembic_version'), 'pg_class')"


def migrate(url: str, agency: str, *, revision: str = "head") -> None:
    """Run the migrations that a database lacks, all in one transaction; safe to run twice.

    Raises `UnavailableError` when the store does not answer, `ConflictError` NB-5011 when the
    database is another agency's. Blocks: call it from a thread where an event loop runs.
    """
    with _alone(url, agency, seconds=STATEMENT_SECONDS) as (_, upgrade):
        upgrade(revision)


def rebuild(
    url: str,
    agency: str,
    *,
    revision: str,
    admit: Callable[[psycopg.Connection], None],
    fill: Callable[[psycopg.Connection], None],
    mark: Callable[[psycopg.Connection], None],
) -> None:
    """Make a whole store in one transaction: its tables as of `revision`, rows, later migrations.

    `admit` raises unless the database may be used, `fill` writes rows into empty tables, `mark`
    comes last, when all migrations ran. Whatever is raised, nothing has changed. Raises also what
    `migrate` raises.
    """
    with _alone(url, agency, seconds=REBUILD_SECONDS) as (connection, upgrade):
        driver = connection.connection.driver_connection
        assert isinstance(driver, psycopg.Connection)
        admit(driver)
        found = MigrationContext.configure(connection).get_current_revision()
        if found not in (None, revision):
            # Its tables are empty, and those of another revision than the rows.
            connection.execute(text("DROP SCHEMA public CASCADE"))
            connection.execute(text("CREATE SCHEMA public"))
        upgrade(revision)
        fill(driver)
        upgrade("head")
        mark(driver)


def is_known(revision: str) -> bool:
    """Say whether this build has a migration of that name; a later build may have more."""
    known = ScriptDirectory.from_config(_configured()).walk_revisions()
    return revision in {each.revision for each in known}


def _configured() -> Config:
    config = Config()
    # A percent sign in the path would be read as the beginning of a placeholder.
    config.set_main_option("script_location", str(MIGRATIONS).replace("%", "%%"))
    config.set_main_option("path_separator", "os")
    return config


@contextmanager
def _alone(
    url: str, agency: str, *, seconds: int
) -> Iterator[tuple[Connection, Callable[[str], None]]]:
    """Open one transaction that no other migration runs beside; `upgrade(revision)` migrates."""
    settings = connection_settings(url)
    engine = create_engine(
        "postgresql+psycopg://",
        creator=lambda: psycopg.connect(**settings),
        poolclass=NullPool,
    )
    config = _configured()
    try:
        with border(), engine.begin() as connection:
            for statement in (
                f"SET LOCAL statement_timeout = '{seconds}s'",
                f"SET LOCAL lock_timeout = '{LOCK_SECONDS}s'",
                f"SET LOCAL idle_in_transaction_session_timeout = '{seconds}s'",
                f"SELECT pg_advisory_xact_lock({_LOCK})",
            ):
                connection.execute(text(statement))
            found = connection.execute(text(_AGENCY)).scalar()
            if found is not None and found != agency:
                raise ConflictError("NB-5011", found=found, agency=agency)
            config.attributes.update(connection=connection, agency=agency)

            def upgrade(revision: str) -> None:
                command.upgrade(config, revision)

            yield connection, upgrade
            if connection.execute(text(_AGENCY)).scalar() is None:
                connection.execute(text(f"COMMENT ON TABLE alembic_version IS '{agency}'"))
    except DBAPIError as error:
        if isinstance(error.orig, psycopg.OperationalError | psycopg.InterfaceError):
            reason = str(error.orig).splitlines()[0]
            raise UnavailableError("NB-5001", reason=reason) from error
        raise
