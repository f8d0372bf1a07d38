"""One tiny run and its artifact, made through the command line and shared by the tests of the commands."""

from __future__ import annotations

import json
from collections.abc import Callable
from dataclasses import dataclass
from pathlib import Path
from typing import Any

import pytest
import yaml
from cli_data import DATA

from dropclass_deploy.cli.app import run as run_command


@dataclass(frozen=True)
class Result:
    """What a command left behind."""

    code: int
    out: str
    err: str

    @property
    def json(self) -> dict[str, Any]:
        return json.loads(self.out)

    def mistake(self) -> str:
        """The one line of a user's mistake."""
        lines = self.err.strip().splitlines()
        assert self.code == 2, self.err
        assert lines[-1].startswith("dropclass: ")
        assert "Traceback" not in self.err
        assert sum(line.startswith("dropclass: ") for line in lines) == 1
        return lines[-1]


Command = Callable[..., Result]


@pytest.fixture
def dropclass(capfd: pytest.CaptureFixture[str]) -> Command:
    def call(*arguments: object) -> Result:
        capfd.readouterr()
        code = run_command([str(argument) for argument in arguments])
        captured = capfd.readouterr()
        return Result(code, captured.out, captured.err)

    return call


def write_recipe(path: Path, **train: Any) -> Path:
    content = {
        "data": DATA,
        "model": {"name": "unet", "options": {"width": 4, "depth": 2}},
        "train": {"steps": 4, "batch_size": 2, "crop": [32, 32], "device": "cpu", "validate_every": 4, **train},
    }
    path.write_text(yaml.safe_dump(content))
    return path


@pytest.fixture(scope="session")
def recipe(tmp_path_factory: pytest.TempPathFactory) -> Path:
    return write_recipe(tmp_path_factory.mktemp("recipe") / "tiny.yaml")


@pytest.fixture(scope="session")
def trained(recipe: Path, tmp_path_factory: pytest.TempPathFactory) -> Path:
    folder = tmp_path_factory.mktemp("cli") / "run"
    assert run_command(["train", str(recipe), "-o", str(folder)]) == 0
    return folder


@pytest.fixture(scope="session")
def artifact(trained: Path, tmp_path_factory: pytest.TempPathFactory) -> Path:
    folder = tmp_path_factory.mktemp("cli") / "artifact"
    assert run_command(["export", str(trained), "-o", str(folder)]) == 0
    return folder
