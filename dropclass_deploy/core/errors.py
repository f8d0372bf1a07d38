"""The whole exception tree of the package, on one page.

* DropclassError
  x UserError               the caller's mistake: found, expected, remedy (the command line exits with 2)
    - RecipeError           a recipe or a ``--set`` that does not fit the schema
    - DataError             images, masks or class tables that cannot be used as they are
    - ModelError            a model, a weight file or a classifier that cannot be used
    - RunError              a run folder that is missing, foreign or does not fit
    - ArtifactError         an artifact that is incomplete, changed or unsafe
    - MissingExtraError     an optional dependency that is not installed, and the extra that brings it
  x GateRefusedError        a gate measured and said no (the command line exits with 3)
  x OutOfMemoryError        a network needed more memory than there is (exit code 1)
  x TrainingInterruptedError     a signal stopped long work after its state was saved (exit code 1)
"""

from __future__ import annotations

import re

# Line ends, terminal escapes, what turns the direction of text, and halves of characters that no stream can write.
_UNSAFE = re.compile("[\x00-\x1f\x7f-\x9f\u2028\u2029\u202a-\u202e\u2066-\u2069\ud800-\udfff]")


def printable(text: str) -> str:
    """Text from anywhere on one line of a terminal: line ends become spaces, other control characters are spelled out."""
    return _UNSAFE.sub(lambda sign: " " if sign[0] in "\n\r\t" else ascii(sign[0])[1:-1], text)


class DropclassError(Exception):
    """Base of every error that this package raises on purpose."""


class UserError(DropclassError):
    """A mistake that the caller can mend; the message says what was found, what was expected and what to do."""

    def __init__(self, found: str, *, expected: str = "", remedy: str = "") -> None:
        # Names out of files stand in all three.
        self.found, self.expected, self.remedy = printable(found), printable(expected), printable(remedy)
        parts = [self.found]
        if expected:
            parts.append(f"expected {self.expected}")
        if remedy:
            parts.append(self.remedy)
        super().__init__("; ".join(part.rstrip(".;") for part in parts))


class RecipeError(UserError):
    """A recipe key or value that does not fit the schema."""


class DataError(UserError):
    """Images, masks or class tables that cannot be used as they are."""


class ModelError(UserError):
    """A model, weight file or classifier that cannot be used."""


class RunError(UserError):
    """A run folder that is missing, foreign or does not fit what was asked."""


class ArtifactError(UserError):
    """An artifact that is incomplete, changed since it was written, or unsafe to load."""


class MissingExtraError(UserError):
    """An optional dependency that is not installed; ``index`` where PyPI does not carry all of it."""

    def __init__(self, package: str, extra: str, *, index: str = "") -> None:
        source = f"--extra-index-url {index} " if index else ""
        super().__init__(
            f"the package {package!r} is not installed",
            remedy=f"install it with: pip install {source}'dropclass-deploy[{extra}]'",
        )


class GateRefusedError(DropclassError):
    """A gate measured and refused; nothing was wrong with the input."""


class OutOfMemoryError(DropclassError):
    """A network needed more memory than there is; its runtime is best opened again."""


class TrainingInterruptedError(DropclassError):
    """Long work was stopped by a signal after its state had been saved."""


def first_line(error: BaseException, limit: int | None = 160) -> str:
    """The first line of an error's own words, cut at ``limit`` characters; the name of its type when it has none."""
    lines = str(error).strip().splitlines() or [type(error).__name__]
    return lines[0][:limit]
