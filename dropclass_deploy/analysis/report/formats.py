"""Figures as text. What was not measured (None, NaN, infinite) is an en dash, never a zero."""

from __future__ import annotations

import math
from dataclasses import dataclass
from typing import TypeGuard

NOTHING = "–"
MINUS = "−"


@dataclass(frozen=True)
class Bar:
    """A figure with a bar beside it; ``width`` in percent of the longest possible."""

    text: str
    width: float


def known(value: float | None) -> TypeGuard[float]:
    """Whether there is a finite figure to show."""
    return value is not None and math.isfinite(value)


def percent(value: float | None, digits: int = 1) -> str:
    """A fraction in percent, without the sign: 0.6123 → "61.2"."""
    return _signed(f"{100 * value:.{digits}f}") if known(value) else NOTHING


def points(value: float | None, digits: int = 2) -> str:
    """A difference of fractions in percentage points, with its sign: −0.0034 → "−0.34"; exactly nothing is "0.00"."""
    if not known(value):
        return NOTHING
    text = f"{100 * value:+.{digits}f}"
    return text[1:] if not float(text) else _signed(text)


def milliseconds(value: float | None) -> str:
    """Three significant digits, at most two after the point: 0.12, 1.23, 12.3, 123."""
    if not known(value):
        return NOTHING
    digits = 2 if abs(value) < 10 else 1 if abs(value) < 100 else 0
    return _signed(f"{value:,.{digits}f}")


def times(value: float | None) -> str:
    """A ratio: "2.25×"."""
    return f"{value:.2f}×" if known(value) else NOTHING


def count(value: int | None) -> str:
    """A whole number with separators: 1,234,567."""
    return NOTHING if value is None else f"{value:,}"


def per_million(value: float | None) -> str:
    """A small share: 3.2e-6 → "3.2 in a million"."""
    if not known(value):
        return NOTHING
    return "none" if value == 0 else f"{1e6 * value:,.3g} in a million"


def _signed(text: str) -> str:
    return text.replace("-", MINUS)
