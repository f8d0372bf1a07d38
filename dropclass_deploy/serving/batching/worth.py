"""Whether it pays to run several items together: measured, not assumed.

A GPU runs four small images in little more than the time of one; a CPU whose cores one image keeps busy takes four times as
long, and the first of the four waits for the last.
"""

from __future__ import annotations

from collections import OrderedDict
from collections.abc import Hashable
from dataclasses import dataclass

_PAYS = 0.9
"""Seconds an item in a batch, as a share of those alone: below, batches pay."""
_NEWEST = 0.25
"""Weight of the last run in the moving average."""
_TRY_AGAIN = 64
"""Runs alone, with others waiting, after which a batch is tried again: a machine's load changes."""
_KEYS = 64
"""Kinds of items that are remembered: clients choose the sizes of their images."""


@dataclass
class _Measured:
    alone_s: float | None = None
    together_s: float | None = None
    declined: int = 0


class BatchWorth:
    """Chooses the size of the next batch.

    Attributes:
        largest: items in a batch.
    """

    def __init__(self, largest: int) -> None:
        self.largest = largest
        self._measured: OrderedDict[Hashable, _Measured] = OrderedDict()

    def choose(self, key: Hashable, waiting: int) -> int:
        """How many of the waiting items of one kind are to run together, from 1."""
        size = min(waiting, self.largest)
        found = self._measured.get(key)
        if size <= 1 or found is None or found.alone_s is None:
            return min(size, 1)
        if found.together_s is None or found.together_s < _PAYS * found.alone_s:
            return size
        found.declined += 1
        return size if found.declined % _TRY_AGAIN == 0 else 1

    def learn(self, key: Hashable, items: int, seconds: float) -> None:
        """What a run of some items took."""
        found = self._measured.setdefault(key, _Measured())
        self._measured.move_to_end(key)
        if items == 1:
            found.alone_s = _average(found.alone_s, seconds)
        else:
            found.together_s = _average(found.together_s, seconds / items)
        while len(self._measured) > _KEYS:
            self._measured.popitem(last=False)


def _average(before: float | None, new: float) -> float:
    return new if before is None else before + _NEWEST * (new - before)
