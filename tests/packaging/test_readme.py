"""The README's commands and code, run as they stand."""

from __future__ import annotations

import re
import shlex
import shutil
from pathlib import Path

import numpy as np
import pytest
from PIL import Image

from dropclass_deploy.cli.app import app, run

ROOT = Path(__file__).parents[2]
TEXT = (ROOT / "README.md").read_text(encoding="utf-8")


def blocks(language: str) -> list[str]:
    return re.findall(rf"```{language}\n(.*?)```", TEXT, flags=re.DOTALL)


def test_the_first_python_block_runs() -> None:
    exec(compile(blocks("python")[0], "README.md", "exec"), {})


def test_every_command_has_a_row() -> None:
    rows = set(re.findall(r"^\| `dropclass ([\w-]+)", TEXT, flags=re.MULTILINE))
    groups = {group.name or group.typer_instance.info.name for group in app.registered_groups}
    assert rows == groups | {command.name or command.callback.__name__ for command in app.registered_commands}


def test_every_local_link_leads_somewhere() -> None:
    targets = re.findall(r"\]\((?!http)([^)#]+)\)", TEXT)
    assert len(targets) >= 3
    assert [target for target in targets if not (ROOT / target).exists()] == []


@pytest.mark.slow
@pytest.mark.chosen
def test_training_on_your_own_data(tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> None:
    block = next(text for text in blocks("sh") if "classes.yaml" in text)
    monkeypatch.chdir(tmp_path)
    shutil.copytree(ROOT / "recipes", "recipes")
    for name in ("images", "masks"):
        (tmp_path / "my" / "data" / name).mkdir(parents=True)
    for index in range(60):
        rng = np.random.default_rng(index)
        Image.fromarray(rng.integers(0, 256, (40, 40, 3), np.uint8)).save(f"my/data/images/{index:02}.png")
        Image.fromarray(rng.choice(np.array([0, 128, 255], np.uint8), (40, 40))).save(f"my/data/masks/{index:02}.png")
    yaml = re.search(r"<<'EOF'\n(.*?)\nEOF", block, flags=re.DOTALL)
    assert yaml is not None
    Path("my/data/classes.yaml").write_text(yaml.group(1))
    lines = [shlex.split(line, comments=True)[1:] for line in block.splitlines() if line.startswith("dropclass ")]
    assert [line[0] for line in lines] == ["check-data", "train", "export", "verify", "predict"]
    # The README's own lines, with a budget and a network small enough for a test.
    lines[1] += ["--set", "train.steps=2", "--set", "train.crop=[32, 32]"]
    lines[1] += ["--set", "model={name: unet, options: {width: 4}}"]
    for line in lines:
        assert run(line) == 0, line
    assert len(list(Path("masks").glob("*.png"))) == 120
    code = blocks("python")[1].replace("(360, 480, 3)", "(40, 40, 3)")
    exec(compile(code, "README.md", "exec"), {})
