"""The parts of a run: who made each and how long it took, in a file beside the run folder."""

from __future__ import annotations

import json
import time
from collections.abc import Iterator
from contextlib import contextmanager
from pathlib import Path
from typing import Any

from dropclass_deploy.core.files import write_json

Made = dict[str, Any]
"""What a part was made by: code, versions, device, threads; see ``provenance.made``."""
_UNKNOWN: Made = {"code": None, "versions": None, "device": None, "threads": None}


def wall_file(folder: Path) -> Path:
    """Beside a run folder: its parts, and the seconds that they took."""
    return folder.with_name(f"{folder.name}.wall.json")


def spent_s(folder: Path) -> float:
    """Seconds that the parts of a run took so far; those of a part that was killed outright are not known."""
    return float(sum(part["wall_s"] for part in _read(folder)))


def same_maker(folder: Path, made: Made) -> bool:
    """Whether every part that is known came from this code and kind of device."""
    known = [part for part in _read(folder) if part["code"] is not None]
    return all(part[key] == made[key] for part in known for key in ("code", "device"))


def begin(folder: Path, made: Made, step: int) -> None:
    """A part begins at a step; at step 0 of a new run ``forget`` comes first."""
    parts = _read(folder)
    if step and not parts:
        # Of a run that nobody clocked.
        parts.append({**_UNKNOWN, "began_at": 0, "wall_s": 0.0, "clocked": False})
    _write(folder, [*parts, {**made, "began_at": step, "wall_s": 0.0, "clocked": False}])


def forget(folder: Path) -> None:
    """The run folder's content is to be replaced."""
    wall_file(folder).unlink(missing_ok=True)


@contextmanager
def clocked(folder: Path) -> Iterator[None]:
    """Add the time of the block to a run's last part, however the block ends; a kill leaves the part not clocked."""
    *before, last = _read(folder)
    began = time.perf_counter()
    _write(folder, [*before, {**last, "clocked": False}])
    try:
        yield
    finally:
        spent = last["wall_s"] + time.perf_counter() - began
        _write(folder, [*before, {**last, "wall_s": spent, "clocked": True}])


def stored(folder: Path, steps: int) -> dict[str, Any]:
    """What a cell stores of its parts.

    Args:
        folder: of the run.
        steps: of the whole run.

    Returns:
        ``wall_s`` of all; ``wall_complete``, false when a part ended unclocked and null when that is not known; ``parts``
        with the steps of each.
    """
    parts = _read(folder)
    ends = [*(part["began_at"] for part in parts[1:]), steps]
    clocked = [part["clocked"] for part in parts]
    return {
        "wall_s": round(spent_s(folder), 1),
        "wall_complete": False if False in clocked else None if None in clocked else True,
        "parts": [
            {
                **{key: part[key] for key in _UNKNOWN},
                "steps": end - part["began_at"],
                "wall_s": round(part["wall_s"], 1),
            }
            for part, end in zip(parts, ends, strict=True)
        ],
    }


def _read(folder: Path) -> list[dict[str, Any]]:
    path = wall_file(folder)
    if not path.is_file():
        return []
    content = json.loads(path.read_text(encoding="utf-8"))
    # Before there were parts, the file had their sum.
    whole = {**_UNKNOWN, "began_at": 0, "wall_s": content["wall_s"], "clocked": None}
    parts: list[dict[str, Any]] = content.get("parts", [whole])
    return parts


def _write(folder: Path, parts: list[dict[str, Any]]) -> None:
    write_json(wall_file(folder), {"wall_s": sum(part["wall_s"] for part in parts), "parts": parts})
