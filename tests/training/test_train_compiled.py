"""``train.compile``: the same training through torch.compile, and one line where it cannot be had."""

import json
import os
import re
import shutil
import subprocess
import sys
from pathlib import Path

import pytest
import torch
from small_network import SmallNetwork

from dropclass_deploy.core.errors import ModelError
from dropclass_deploy.models import build_model
from dropclass_deploy.training import train
from dropclass_deploy.training.recipe import Recipe

pytestmark = pytest.mark.slow


def recipe(**train_keys) -> Recipe:
    return Recipe.model_validate(
        {
            "data": "synthetic:",
            "method": {"name": "dropclass", "drop_max": 1.0},
            "train": {
                "steps": 4, "batch_size": 2, "crop": [48, 64], "lr": 1e-3, "log_every": 1, "validate_every": 2,
                "checkpoint_every": 2, "workers": 0, "device": "cpu", **train_keys,
            },
        }
    )  # fmt: skip


def losses(folder: Path) -> list[float]:
    lines = [json.loads(line) for line in (folder / "metrics.jsonl").read_text().splitlines()]
    return [line["loss"] for line in lines if line["kind"] == "train"]


@pytest.mark.skipif(shutil.which("g++") is None, reason="torch.compile on a CPU needs g++")
@pytest.mark.chosen
def test_a_compiled_training_is_the_same_training(tmp_path: Path):
    found = []
    for compiled in (False, True):
        model = SmallNetwork(12)
        folder = train(recipe(compile=compiled), tmp_path / str(compiled), model=model)
        assert not any(module._forward_hooks for module in model.modules())
        found.append(losses(folder))
    # Fused kernels round otherwise, and the steps add up.
    assert found[1] == pytest.approx(found[0], rel=1e-3)
    assert len(found[0]) == 4


def test_without_a_compiler_one_line_says_what_to_do(tmp_path: Path):
    # Another width than above, and a cache of its own: nothing is there that was compiled before.
    content = {**recipe(compile=True).model_dump(mode="json", by_alias=True)}
    content["model"] = {"name": "unet", "options": {"width": 12}}
    (tmp_path / "recipe.yaml").write_text(json.dumps(content))
    environment = {**os.environ, "CXX": "/nowhere/g++", "TORCHINDUCTOR_CACHE_DIR": str(tmp_path / "cache")}
    command = [sys.executable, "-m", "dropclass_deploy", "train", "recipe.yaml", "-o", "run"]
    result = subprocess.run(command, cwd=tmp_path, env=environment, capture_output=True, text=True, check=False)
    assert result.returncode == 2, result.stderr
    assert re.search(
        r"torch\.compile cannot compile this network here \(.*C\+\+ compiler.*set train\.compile: false",
        " ".join(result.stderr.split()),
    )
    assert "Traceback" not in result.stderr


def test_a_network_that_must_run_whole_is_not_compiled_and_the_old_run_stays(tmp_path: Path):
    train(recipe(), tmp_path / "run", model=SmallNetwork(12))
    before = sorted(path.name for path in (tmp_path / "run").iterdir())

    class Scaled(torch.nn.Module):
        def __init__(self) -> None:
            super().__init__()
            self.inner = build_model("unet", 12, width=8)

        def forward(self, images: torch.Tensor) -> torch.Tensor:
            return self.inner(images) * (0.5 if self.training else 1.0)

    with pytest.raises(ModelError, match=r"cannot be compiled for training .*in training.*set train\.compile: false"):
        train(recipe(compile=True), tmp_path / "run", model=Scaled(), overwrite=True)
    assert sorted(path.name for path in (tmp_path / "run").iterdir()) == before
