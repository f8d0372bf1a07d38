"""Which cases of a slow test are in every round."""

from __future__ import annotations

from collections.abc import Iterable
from typing import Any

import pytest


def first_of(values: Iterable[Any]) -> list[Any]:
    """The first case in every round, the others, which take the same way, in the slow one."""
    first, *others = values
    return [first, *(pytest.param(*_several(other), marks=pytest.mark.slow) for other in others)]


def _several(value: Any) -> tuple[Any, ...]:
    return value if isinstance(value, tuple) else (value,)
