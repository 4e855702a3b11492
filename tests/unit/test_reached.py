"""How far notices come in a pass is kept by notice, and starts from nothing with each pass."""

from contextlib import closing
from uuid import UUID

from services.replay.reached import Reached

ONE, OTHER = UUID(int=1), UUID(int=2)


def test_the_last_revision_of_each_notice_is_kept() -> None:
    with closing(Reached()) as reached:
        assert reached.get(ONE, 0) == 0
        for revision in (1, 2):
            reached[ONE] = revision
        reached[OTHER] = 7

        assert (reached.get(ONE, 0), reached.get(OTHER, 0)) == (2, 7)
        with closing(Reached()) as another:
            assert another.get(ONE, 5) == 5
