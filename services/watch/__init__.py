"""Follow an agency's ledger live: one line for each thing that happened, in the ledger's order.

    async with aclosing(watch(store, "ice", after=Cursor.parse(said))) as lines:
        async for line in lines:
            print(line.cursor, line.state, line.notice_id)

A line's place is its record's index in the audit log. The sealer gives those out without a gap, in
one order for everybody, while ids of records may appear late, in any order; so whoever keeps the
cursor of the last line can stop at any moment, be killed, and go on after it: each line is shown
once, and none is missed. The price: a line appears when its record is sealed, which is at once
where an answer is owed, else within a second, and not at all while no sealer runs.
"""

from services.watch.lines import Cursor, Direction, Line
from services.watch.watching import Only, Turn, unsealed, watch

__all__ = ["Cursor", "Direction", "Line", "Only", "Turn", "unsealed", "watch"]
