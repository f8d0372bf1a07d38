"""Verdicts as the page shows them: a word, a sign and a style, so that colour is never alone."""

from __future__ import annotations

from dataclasses import dataclass


@dataclass(frozen=True)
class Badge:
    """A verdict's sign, word and CSS class."""

    sign: str
    word: str
    style: str


_BADGES = {
    "pass": Badge("✓", "pass", "good"),
    "fail": Badge("✕", "fail", "bad"),
    "insufficient": Badge("?", "insufficient", "unsure"),
    "absent": Badge("–", "absent", "quiet"),
}
NOT_MEASURED = Badge("–", "not measured", "quiet")


def badge(verdict: str | None) -> Badge:
    """The badge of a verdict; one that is not known is shown as it was written, without a colour."""
    if not verdict:
        return NOT_MEASURED
    return _BADGES.get(verdict, Badge("–", verdict, "quiet"))
