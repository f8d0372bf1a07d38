"""How long work says where it is, without knowing whether anybody looks."""

from __future__ import annotations

from collections.abc import Iterator
from contextlib import AbstractContextManager, contextmanager
from typing import Protocol


class Advance(Protocol):
    """Says how far a piece of work is."""

    def __call__(self, done: int, total: int, status: str = "", /) -> None:
        """``done`` of ``total`` units; ``status`` is a short text beside the bar."""


class Reporter(Protocol):
    """What long work tells its caller; the command line draws it, a library user may ignore it."""

    def note(self, text: str) -> None:
        """A line worth keeping."""

    def phase(self, title: str) -> AbstractContextManager[Advance]:
        """A piece of work with a beginning and an end."""


class Silent:
    """A reporter that says nothing."""

    def note(self, text: str) -> None:
        """Ignore the line."""

    @contextmanager
    def phase(self, title: str) -> Iterator[Advance]:  # noqa: ARG002 (the protocol's signature)
        """A phase that nobody sees."""
        yield _ignore


def _ignore(done: int, total: int, status: str = "", /) -> None:
    """Take a report and do nothing with it."""
