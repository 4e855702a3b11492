"""Redis Streams, and everything that is to be known about them, in one place.

`Publisher` puts signed bytes on our streams; `Reader` hands what arrives to `take` and acknowledges
exactly what is durable then. The bus is a transport: whatever it loses is sent again from the
sender's database, so nothing here is evidence of anything.
"""

from services.bus.connection import GroupGoneError, connected
from services.bus.entry import Entry, Verdict
from services.bus.history import History
from services.bus.pending import Group
from services.bus.publisher import Publisher
from services.bus.reader import Reader
from services.bus.status import ConsumerStatus, GroupStatus, group_status

__all__ = [
    "ConsumerStatus",
    "Entry",
    "Group",
    "GroupGoneError",
    "GroupStatus",
    "History",
    "Publisher",
    "Reader",
    "Verdict",
    "connected",
    "group_status",
]
