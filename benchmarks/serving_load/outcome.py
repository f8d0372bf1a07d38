"""What a measurement found, and how it is stored."""

from __future__ import annotations

from collections.abc import Mapping, Sequence
from dataclasses import asdict, dataclass, field
from pathlib import Path
from typing import Any

from code_version import code

from dropclass_deploy.core.files import write_json
from dropclass_deploy.serving.benchmark.environment import load_average, read_environment
from dropclass_deploy.serving.versions import library_versions

_LIBRARIES = ("fastapi", "starlette", "uvicorn", "httptools", "uvloop", "prometheus-client", "pydantic")


@dataclass(frozen=True)
class Bar:
    """A figure that must not be missed.

    Attributes:
        what: is measured, with its unit.
        value: found.
        expected: in words and figures.
        met: whether the value is as expected.
    """

    what: str
    value: Any
    expected: str
    met: bool


def at_most(what: str, value: float | None, most: float) -> Bar:
    """A bar from above; a value that is missing misses it."""
    return Bar(what, None if value is None else round(value, 4), f"≤ {most:g}", value is not None and value <= most)


def equal(what: str, value: Any, expected: Any) -> Bar:
    """A bar that only one value meets."""
    return Bar(what, value, str(expected), value == expected)


@dataclass(frozen=True)
class Outcome:
    """Of one measurement.

    Attributes:
        settings: of the measurement and of the server, those that differ from the defaults.
        figures: whatever was found.
        bars: what must hold.
    """

    settings: Mapping[str, Any]
    figures: Mapping[str, Any]
    bars: Sequence[Bar] = field(default_factory=tuple)

    @property
    def met(self) -> bool:
        """Whether all bars are."""
        return all(bar.met for bar in self.bars)


def environment_now() -> dict[str, Any]:
    """The machine and the software, read before a measurement."""
    environment = read_environment(None)
    environment["versions"] |= library_versions(_LIBRARIES)
    # Not in the server's process, and not measured here.
    for name in ("torch", "openvino", "tensorrt"):
        environment["versions"].pop(name, None)
    return environment


def store(path: Path, command: str, environment: Mapping[str, Any], outcome: Outcome) -> None:
    """Write an outcome as JSON with the command that repeats it."""
    content = {
        "command": command,
        "code": code(),
        "environment": {**environment, "load_average_after": load_average()},
        "settings": dict(outcome.settings),
        "figures": dict(outcome.figures),
        "bars": [asdict(bar) for bar in outcome.bars],
        "met": outcome.met,
    }
    write_json(path, content)
