"""Databases of tests: copies of one that was migrated once, or that a life was lived in."""

from dataclasses import dataclass, field
from uuid import uuid4

import psycopg
from psycopg import sql

from services.embedded import PostgresServer
from services.ledger.store import migrate


@dataclass
class Databases:
    """Makes databases on one server; `templates` holds the migrated ones by agency."""

    server: PostgresServer
    templates: dict[str, str] = field(default_factory=dict)

    def fresh(self, agency: str) -> str:
        """Return the address of a migrated database that nobody used."""
        if agency not in self.templates:
            name = f"template_{agency}"
            self._execute("CREATE DATABASE {}", name)
            migrate(self.server.url_of(name), agency)
            self.templates[agency] = self.server.url_of(name)
        return self.copy(self.templates[agency])

    def copy(self, url: str) -> str:
        """Return the address of a copy of a database that nobody is connected to."""
        fresh = f"test_{uuid4().hex}"
        self._execute("CREATE DATABASE {} TEMPLATE {} STRATEGY FILE_COPY", fresh, _name(url))
        return self.server.url_of(fresh)

    def drop(self, url: str) -> None:
        """Drop a database, whoever is connected to it."""
        self._execute("DROP DATABASE {} WITH (FORCE)", _name(url))

    def _execute(self, statement: str, *names: str) -> None:
        text = sql.SQL(statement).format(*map(sql.Identifier, names))
        with psycopg.connect(self.server.url, autocommit=True, connect_timeout=10) as connection:
            connection.execute(text)


def _name(url: str) -> str:
    return str(psycopg.conninfo.conninfo_to_dict(url)["dbname"])
