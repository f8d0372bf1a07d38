"""From the raw values in mask files to class ids: a lookup table that refuses what it does not know."""

from __future__ import annotations

from collections.abc import Iterable, Mapping
from pathlib import Path

import numpy as np

from dropclass_deploy.core.classes import IGNORE_INDEX
from dropclass_deploy.core.errors import DataError
from dropclass_deploy.data.images import Integers, Pixels

MAX_RAW_VALUE = 65535
_SHOWN = 4


class LabelMap:
    """Raw mask value → class id, or "ignore" (255).

    Args:
        ids: class id of each raw value, 0 … 65535.
        ignored: raw values that count nowhere.
        remedy: what a user can do about a value that is in neither, for the error message.
    """

    def __init__(
        self, ids: Mapping[int, int], ignored: Iterable[int] = (), *, remedy: str = "correct the mask"
    ) -> None:
        table = dict.fromkeys(ignored, IGNORE_INDEX) | dict(ids)
        # One entry more than there are raw values: everything beyond them is looked up there and is unknown.
        self._ids = np.zeros(MAX_RAW_VALUE + 2, dtype=np.uint8)
        self._known = np.zeros(MAX_RAW_VALUE + 2, dtype=np.bool_)
        for raw, index in table.items():
            self._ids[raw], self._known[raw] = index, True
        self._remedy = remedy

    @property
    def known(self) -> dict[int, int]:
        """Raw value → class id, or 255 where it is ignored, for every raw value that has a meaning."""
        return {int(raw): int(self._ids[raw]) for raw in np.flatnonzero(self._known)}

    def apply(self, raw: Integers, path: Path) -> Pixels:
        """Class ids of a mask.

        Args:
            raw: values as stored, any shape.
            path: of the mask, for the error message.

        Returns:
            uint8, same shape; 255 where the value is ignored.

        Raises:
            DataError: naming the values that have no class, with their pixel counts.
        """
        index = raw if raw.dtype == np.uint8 else np.where((raw < 0) | (raw > MAX_RAW_VALUE), MAX_RAW_VALUE + 1, raw)
        if not self._known[index].all():
            raise self._unknown(raw[~self._known[index]], raw.size, path)
        return self._ids[index]

    def _unknown(self, values: Integers, total: int, path: Path) -> DataError:
        unknown, counts = np.unique(values, return_counts=True)
        order = np.argsort(-counts, kind="stable")[:_SHOWN]
        listed = ", ".join(f"{unknown[place]} ({counts[place]} pixels)" for place in order)
        more = f" and {len(unknown) - _SHOWN} values more" if len(unknown) > _SHOWN else ""
        return DataError(
            f"the mask {path} holds values that belong to no class: {listed}{more}, of {total} pixels",
            expected=f"one of the raw values {self._allowed()}",
            remedy=self._remedy,
        )

    def _allowed(self) -> str:
        """The known raw values, runs as ranges: "0–11, 255"."""
        values = np.flatnonzero(self._known)
        runs = np.split(values, np.flatnonzero(np.diff(values) > 1) + 1)
        shown = [str(run[0]) if len(run) == 1 else f"{run[0]}–{run[-1]}" for run in runs]
        return ", ".join(shown[:12]) + (" …" if len(shown) > 12 else "")
