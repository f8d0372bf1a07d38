"""What the extras bring, and on which machines."""

from __future__ import annotations

import tomllib
from pathlib import Path

import pytest
from packaging.requirements import Requirement

PROJECT = tomllib.loads((Path(__file__).parents[2] / "pyproject.toml").read_text(encoding="utf-8"))["project"]


def brought(extra: str, machine: str) -> set[str]:
    """Names of the packages that an extra and the extras in it bring on Linux."""
    found = set()
    for line in PROJECT["optional-dependencies"][extra]:
        wanted = Requirement(line)
        if wanted.name == PROJECT["name"]:
            found |= {name for inner in wanted.extras for name in brought(inner, machine)}
        elif wanted.marker is None or wanted.marker.evaluate({"platform_machine": machine, "sys_platform": "linux"}):
            found.add(wanted.name)
    return found


@pytest.mark.parametrize("extra", ["dev", "tensorrt-rtx"])
def test_tensorrt_rtx_is_wanted_only_where_it_has_wheels(extra: str) -> None:
    only_there = brought(extra, "x86_64") - brought(extra, "aarch64")
    assert only_there == {"tensorrt-rtx-cu13", "cuda-bindings"}
