"""Two processes over gloo against one: the same dropped classes, gradients, losses and figures."""

from __future__ import annotations

import json
import os
import subprocess
import sys
import textwrap
from pathlib import Path
from typing import Any

import pytest
import torch
from safetensors.torch import load_file
from small_network import SmallNetwork
from test_trainer import recipe, records

from dropclass_deploy.core.errors import RecipeError
from dropclass_deploy.data.registry import open_dataset
from dropclass_deploy.training import Recipe, evaluate_network, load_run, train
from dropclass_deploy.training.parallel.processes import Processes, check_batch

pytestmark = pytest.mark.slow

# Three validation images for two processes: one of them has one image more, and none may count twice.
DATA = "synthetic:size=32x48,train=12,val=3,unbiased=2,seed=3"
# Plain descent with rate 1 and no momentum: after a step, the weights have moved by exactly the gradient.
SETTINGS = {
    "data": DATA,
    "train__batch_size": 4,
    "train__steps": 4,
    "train__optimizer": "sgd",
    "train__momentum": 0.0,
    "train__lr": 0.05,
    "train__checkpoint_every": 1,
    "train__keep_last": 4,
    "train__schedule": "constant",
}
WORKER = textwrap.dedent(
    """
    import sys
    sys.path.insert(0, sys.argv[3])
    from small_network import SmallNetwork
    from dropclass_deploy.training import train
    train(sys.argv[1], sys.argv[2], model=SmallNetwork(12), resume="resume" in sys.argv)
    """
)


def train_together(content: Recipe, folder: Path, *arguments: str) -> subprocess.CompletedProcess[str]:
    """Two processes that torchrun starts and connects."""
    folder.parent.mkdir(parents=True, exist_ok=True)
    file, script = folder.parent / "recipe.yaml", folder.parent / "worker.py"
    file.write_text(content.to_yaml(), encoding="utf-8")
    script.write_text(WORKER)
    launcher = [sys.executable, "-m", "torch.distributed.run", "--standalone", "--nproc_per_node", "2"]
    return subprocess.run(
        [*launcher, str(script), str(file), str(folder), str(Path(__file__).parent), *arguments],
        env={**os.environ, "OMP_NUM_THREADS": "1"},
        capture_output=True,
        text=True,
        timeout=300,
        check=False,
    )


def network(run: Path, step: int) -> dict[str, torch.Tensor]:
    folder = run / "checkpoints" / f"step-{step:06d}"
    return {**load_file(folder / "model.safetensors"), **load_file(folder / "branch.safetensors")}


@pytest.fixture(scope="module")
def runs(tmp_path_factory: pytest.TempPathFactory) -> tuple[Path, Path]:
    """The same recipe on one process, and on two."""
    folder = tmp_path_factory.mktemp("processes")
    one = train(recipe(**SETTINGS), folder / "one" / "run", model=SmallNetwork(12))
    result = train_together(recipe(**SETTINGS), folder / "two" / "run")
    assert result.returncode == 0, result.stderr
    return one, folder / "two" / "run"


@pytest.mark.chosen
def test_both_drop_the_same_classes_and_report_the_same_losses(runs: tuple[Path, Path]) -> None:
    one, two = (records(run, "train") for run in runs)
    assert [line["dropped"] for line in two] == [line["dropped"] for line in one]
    assert any(line["dropped"] is not None for line in one)
    for term in ("loss", "ce", "ce_drop", "suppression"):
        # Float32 sums in another order, four steps long.
        assert [line[term] for line in two] == pytest.approx([line[term] for line in one], rel=1e-4, abs=1e-6)


@pytest.mark.chosen
def test_both_have_the_same_gradients(runs: tuple[Path, Path]) -> None:
    before_one, before_two = (network(run, 1) for run in runs)
    for step in (2, 3):
        after_one, after_two = (network(run, step) for run in runs)
        for key in (name for name, value in after_one.items() if value.is_floating_point()):
            moved_one, moved_two = after_one[key] - before_one[key], after_two[key] - before_two[key]
            # Float32 sums over 4,096 pixels in another order, relative to the largest movement of the tensor; weights of
            # size 1 are stored with errors of 6e-8, so a movement below 1e-5 has few digits of its own. The gradient of
            # a bias before a BatchNorm is 0: what is left of 4,096 numbers that cancel, 6e-7 here, is rounding alone.
            scale = float(moved_one.abs().max()) + 1e-4
            assert float((moved_one - moved_two).abs().max()) <= 1e-2 * scale, key
        before_one, before_two = after_one, after_two


def test_evaluation_counts_every_image_once(runs: tuple[Path, Path]) -> None:
    one, two = (json.loads((run / "evaluation.json").read_text()) for run in runs)
    dataset = open_dataset(DATA, "val")
    labelled = sum(int((dataset.mask(index) != 255).sum()) for index in range(len(dataset)))
    for head in ("plain", "folded"):
        rows_one, rows_two = one["heads"][head]["classes"], two["heads"][head]["classes"]
        assert sum(row["pixels"] for row in rows_two) == labelled
        assert [row["pixels"] for row in rows_two] == [row["pixels"] for row in rows_one]
        # Weights that differ in the last bits move a pixel here or there, out of 4,600.
        assert two["heads"][head]["miou"] == pytest.approx(one["heads"][head]["miou"], abs=5e-3)
    assert [line["step"] for line in records(runs[1], "val")] == [line["step"] for line in records(runs[0], "val")]


def test_parts_and_processes_together_make_the_same_step(runs: tuple[Path, Path], tmp_path: Path) -> None:
    # BatchNorm sees the parts one by one: the losses are near, not equal; the shares of the parts come from their labels.
    settings: dict[str, Any] = {**SETTINGS, "train__batch_size": 8, "train__accumulate": 2, "train__steps": 1}
    result = train_together(recipe(**settings), tmp_path / "run")
    assert result.returncode == 0, result.stderr
    alone = train(recipe(**{**settings, "train__accumulate": 1}), tmp_path / "alone", model=SmallNetwork(12))
    one, two = records(alone, "train")[0], records(tmp_path / "run", "train")[0]
    assert two["dropped"] == one["dropped"]
    # The statistics of four images instead of eight.
    assert two["ce"] == pytest.approx(one["ce"], rel=0.02)


def test_without_synchronised_statistics_the_network_that_is_saved_is_the_one_evaluated(tmp_path: Path) -> None:
    settings = {**SETTINGS, "train__sync_batchnorm": False, "train__lr": 0.5}
    result = train_together(recipe(**settings), tmp_path / "run")
    assert result.returncode == 0, result.stderr
    network = SmallNetwork(12)
    loaded = load_run(tmp_path / "run", model=network)
    alone = evaluate_network(network, open_dataset(DATA, "val"), loaded.preprocess)
    assert loaded.evaluation is not None
    assert alone.miou == pytest.approx(loaded.evaluation["heads"]["plain"]["miou"], rel=1e-12)


def test_a_batch_that_the_processes_cannot_share_is_one_clear_line() -> None:
    with pytest.raises(RecipeError, match=r"batch_size 6 .*2 processes in 2 parts each.*multiple of 4.*batch_size=8"):
        check_batch(recipe(train__batch_size=6, train__accumulate=2).train, Processes(count=2))
