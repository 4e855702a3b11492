"""Python's cycle collector, set for processes that handle rows by the thousand.

Rows and messages hold no cycles, but every batch of them made the collector walk all that was ever
imported: a fifth of a relay's and an importer's time (measured at 43,000 notices).
"""

import atexit
import gc

_YOUNG, _MIDDLE, _OLD = 100_000, 20, 50


def collect_seldom() -> None:
    """Leave what is imported by now alone, and look for cycles seldom; memory stays flat."""
    gc.collect()
    gc.freeze()
    gc.set_threshold(_YOUNG, _MIDDLE, _OLD)
    # Extensions look for what they made when the interpreter ends, and call the rest leaked.
    atexit.register(gc.unfreeze)
