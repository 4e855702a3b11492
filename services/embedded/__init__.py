"""Redis and PostgreSQL from wheels: real servers for the demo, the command line and the tests.

`attach(home)` hands out the addresses of the servers that live in `home`, starting them if nobody
uses them yet; the last user stops them. `RedisServer` and `PostgresServer` are single servers on a
folder, for tests that kill and restart them. Both are durable (AOF `always`, fsync and data
checksums on), listen on Unix sockets in closed folders only, and end with the process that started
them, however that ends.
"""

from services.embedded.home import AGENCIES, Servers, attach, in_use, is_home
from services.embedded.postgres import PostgresServer
from services.embedded.redis import RedisServer

__all__ = ["AGENCIES", "PostgresServer", "RedisServer", "Servers", "attach", "in_use", "is_home"]
