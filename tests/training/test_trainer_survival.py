"""What a training survives: a kill at any moment, a full disk, a broken checkpoint; and what it says when it must stop."""

from __future__ import annotations

import json
import random
import signal
import subprocess
import sys
import textwrap
import time
from pathlib import Path
from typing import Any

import numpy as np
import pytest
import torch
from rounds import first_of
from safetensors.torch import load_file
from test_trainer import DATA, Own, Teller, contents, recipe, records
from torch import nn

from dropclass_deploy.core.errors import DropclassError, RecipeError, RunError, TrainingInterruptedError
from dropclass_deploy.data.registry import open_dataset
from dropclass_deploy.export.source import source_from_run
from dropclass_deploy.training import Recipe, evaluate_network, load_run, train
from dropclass_deploy.training.loop.failures import LossWatch, explained_memory
from dropclass_deploy.training.recipe import parse_recipe
from dropclass_deploy.training.runs.checkpoint import checkpoint_folders

CLASSES = len(open_dataset(DATA, "val").classes)
TERMS = ("step", "loss", "ce", "ce_drop", "suppression", "dropped", "lr")


def curve(run: Path) -> list[list[Any]]:
    return [[line[term] for term in TERMS] for line in records(run, "train")]


def same_weights(one: Path, other: Path) -> bool:
    first, second = load_file(one / "model.safetensors"), load_file(other / "model.safetensors")
    return first.keys() == second.keys() and all(torch.equal(first[key], second[key]) for key in first)


TRAIN_IN_ITS_OWN_PROCESS = textwrap.dedent(
    """
    import sys
    from dropclass_deploy.training import train
    train(sys.argv[1], sys.argv[2], resume=len(sys.argv) > 3)
    """
)


def spawn(recipe_file: Path, run: Path, *arguments: str, before: str = "") -> subprocess.Popen[str]:
    command = [sys.executable, "-c", before + TRAIN_IN_ITS_OWN_PROCESS, str(recipe_file), str(run), *arguments]
    return subprocess.Popen(command, stderr=subprocess.PIPE, text=True)


def write_recipe(path: Path, content: Recipe) -> Path:
    path.write_text(content.to_yaml(), encoding="utf-8")
    return path


LONG = {"train__steps": 16, "train__checkpoint_every": 3, "train__validate_every": 8, "train__ema": 0.9}


@pytest.mark.slow
@pytest.mark.chosen
def test_a_run_killed_at_a_random_step_and_resumed_has_the_losses_of_one_never_killed(tmp_path: Path) -> None:
    whole = train(recipe(**LONG, train__workers=1), tmp_path / "whole")
    # Another kill each time the suite runs; the seed is in the message when it fails.
    seed = time.time_ns() % 2**32
    step = random.Random(seed).randint(1, 13)
    file, run = write_recipe(tmp_path / "recipe.yaml", recipe(**LONG, train__workers=1)), tmp_path / "killed"
    process = spawn(file, run)
    while process.poll() is None and (not (run / "metrics.jsonl").is_file() or len(records_so_far(run)) < step):
        time.sleep(0.002)
    process.send_signal(signal.SIGKILL)
    process.communicate()
    assert process.returncode == -signal.SIGKILL, f"the run ended before the kill (seed {seed})"
    with pytest.raises(RunError, match="has not finished"):
        load_run(run)
    again = spawn(file, run, "resume")
    _, errors = again.communicate()
    assert again.returncode == 0, errors
    assert curve(run) == curve(whole), f"killed after step {step} (seed {seed})"
    assert records(run, "val") == records(whole, "val")
    assert same_weights(run, whole)


def records_so_far(run: Path) -> list[str]:
    return [line for line in (run / "metrics.jsonl").read_text().splitlines() if '"kind": "train"' in line]


@pytest.mark.slow
@pytest.mark.parametrize("instant", ["state.pt", "step-000003"])
def test_a_kill_during_a_checkpoint_leaves_the_one_before(tmp_path: Path, instant: str) -> None:
    file, run = write_recipe(tmp_path / "recipe.yaml", recipe(train__checkpoint_every=1)), tmp_path / "run"
    # SIGKILL from within: before the state is written, and before the whole checkpoint gets its name.
    kill = textwrap.dedent(
        f"""
        import os, signal, pathlib, torch
        def fatal(call, of):
            def killed(*arguments, **options):
                if of(*arguments) == {instant!r} and "step-000003" in str(arguments[1]):
                    os.kill(os.getpid(), signal.SIGKILL)
                return call(*arguments, **options)
            return killed
        torch.save = fatal(torch.save, lambda content, stream: pathlib.Path(stream.name).name)
        pathlib.Path.replace = fatal(pathlib.Path.replace, lambda path, target: pathlib.Path(target).name)
        """
    )
    process = spawn(file, run, before=kill)
    _, errors = process.communicate()
    assert process.returncode == -signal.SIGKILL, errors
    assert [folder.name for folder in checkpoint_folders(run)] == ["step-000002", "step-000001"]
    train(recipe(train__checkpoint_every=1), run, resume=True)
    assert same_weights(run, train(recipe(train__checkpoint_every=1), tmp_path / "whole"))
    assert list(run.rglob(".*")) == []


@pytest.mark.slow
def test_a_disk_that_fills_up_during_a_checkpoint_leaves_the_one_before(tmp_path: Path) -> None:
    file, run = write_recipe(tmp_path / "recipe.yaml", recipe(train__checkpoint_every=1)), tmp_path / "run"
    # A limit on the size of a file, set by the system: writing past it fails half-way, as on a full disk.
    full = textwrap.dedent(
        """
        import resource, signal
        from dropclass_deploy.training.runs import checkpoint
        signal.signal(signal.SIGXFSZ, signal.SIG_IGN)
        _, hard = resource.getrlimit(resource.RLIMIT_FSIZE)
        save = checkpoint.save_checkpoint
        def fill(run, step, *rest):
            if step == 3:
                resource.setrlimit(resource.RLIMIT_FSIZE, (2_000, hard))
            return save(run, step, *rest)
        from dropclass_deploy.training.loop import saving
        saving.save_checkpoint = fill
        """
    )
    process = spawn(file, run, before=full)
    _, errors = process.communicate()
    assert process.returncode == 1
    message = errors.strip().splitlines()[-1]
    assert "DropclassError: the checkpoint of step 3 could not be written" in message
    assert f"the last good checkpoint is {run / 'checkpoints' / 'step-000002'}" in message
    assert [folder.name for folder in checkpoint_folders(run)] == ["step-000002", "step-000001"]
    # Nothing half-written stays to fill the disk further.
    assert {path.name for path in (run / "checkpoints").iterdir()} == {"step-000001", "step-000002"}
    train(recipe(train__checkpoint_every=1), run, resume=True)
    assert same_weights(run, train(recipe(train__checkpoint_every=1), tmp_path / "whole"))


def test_when_no_checkpoint_can_be_read_nothing_is_overwritten(tmp_path: Path) -> None:
    path = tmp_path / "run"
    with pytest.raises(TrainingInterruptedError):
        train(recipe(train__keep_last=1), path, reporter=Teller(step=4))
    (checkpoint_folders(path)[0] / "state.pt").write_bytes(b"")
    before = contents(path)
    with pytest.raises(RunError, match=r"state\.pt is damaged.*--overwrite"):
        train(recipe(train__keep_last=1), path, resume=True)
    assert contents(path) == before


@pytest.mark.parametrize(("keep", "kept"), first_of([(3, [6, 5, 4]), (1, [6])]))
def test_the_last_checkpoints_are_kept(tmp_path: Path, keep: int, kept: list[int]) -> None:
    path = train(recipe(train__keep_last=keep, train__checkpoint_every=1), tmp_path / "run")
    assert [folder.name for folder in checkpoint_folders(path)] == [f"step-{step:06d}" for step in kept]


def test_the_best_networks_are_those_of_the_highest_validations(tmp_path: Path) -> None:
    path = train(recipe(train__steps=8, train__validate_every=1, train__lr=3e-3), tmp_path / "run")
    for key, weights in (("miou", "best-miou"), ("rare_miou", "best-rare-miou")):
        figures = [line[key] for line in records(path, "val")]
        best = max(figures)
        stored = json.loads((path / "best" / key / "figures.json").read_text())
        assert stored[key] == best
        # The first of equals.
        assert stored["step"] == 1 + figures.index(best)
        loaded = load_run(path, weights=weights)
        result = evaluate_network(loaded.model, open_dataset(DATA, "val"), loaded.preprocess, rare=loaded.classes.rare)
        # The same weights and images: the same confusion matrix.
        assert (result.miou, result.rare_miou) == (stored["miou"], stored["rare_miou"])
        assert loaded.evaluation is None
        shipped = source_from_run(path, None, weights)
        stored_network = load_file(path / "best" / key / "model.safetensors")
        assert all(torch.equal(value, stored_network[name]) for name, value in shipped.network.state_dict().items())
        assert shipped.provenance["checkpoint"] == weights
    with pytest.raises(RunError, match=r"no weights 'first'.*last, best-miou, best-rare-miou"):
        load_run(path, weights="first")


@pytest.mark.slow
def test_the_moving_average_is_what_is_saved_and_evaluated(tmp_path: Path) -> None:
    decay, settings = 0.5, {"train__steps": 3, "train__checkpoint_every": 1, "train__keep_last": 3}
    path = train(recipe(train__ema=decay, **settings), tmp_path / "run")
    raw = train(recipe(**settings), tmp_path / "raw")
    start = _initial_state()
    for key, value in load_file(path / "model.safetensors").items():
        steps = [load_file(path / "checkpoints" / f"step-{n:06d}" / "model.safetensors")[key] for n in (1, 2, 3)]
        average = start[key].double()
        for updates, current in enumerate(steps):
            d = min(decay, (1 + updates) / (10 + updates))
            average = d * average + (1 - d) * current.double()
        if value.is_floating_point():
            # Float32 averages of numbers up to about 1, three roundings.
            torch.testing.assert_close(value.double(), average, rtol=1e-5, atol=1e-6)
        # The training itself is not touched by its average.
        assert torch.equal(steps[-1], load_file(raw / "model.safetensors")[key])
    loaded = load_run(path)
    result = evaluate_network(loaded.model, open_dataset(DATA, "val"), loaded.preprocess, rare=loaded.classes.rare)
    assert loaded.evaluation is not None
    assert result.miou == loaded.evaluation["heads"]["plain"]["miou"]
    assert json.loads((path / "model.json").read_text())["ema"] == decay


def _initial_state() -> dict[str, torch.Tensor]:
    from dropclass_deploy.models import build_model

    torch.manual_seed(0)
    return build_model("unet", CLASSES, width=4, depth=2).state_dict()


class GroupNormed(nn.Module):
    """A network whose output for an image does not depend on the other images of the batch."""

    def __init__(self) -> None:
        super().__init__()
        self.body = nn.Sequential(nn.Conv2d(3, 8, 3, padding=1), nn.GroupNorm(2, 8), nn.ReLU())
        self.head = nn.Conv2d(8, CLASSES, 1)

    def forward(self, x: torch.Tensor) -> torch.Tensor:
        return self.head(self.body(x))


@pytest.mark.parametrize(
    "method", first_of([{"name": "ce", "with": ["median_frequency", "class_mix"]}, {"name": "ce"}])
)
def test_a_batch_cut_into_parts_trains_as_the_whole(method: dict[str, Any], tmp_path: Path) -> None:
    results = []
    for parts in (1, 2, 4):
        torch.manual_seed(5)
        model = GroupNormed()
        settings = {"train__batch_size": 4, "train__accumulate": parts, "train__steps": 4, "method": method}
        path = train(recipe(**settings, train__optimizer="sgd", train__lr=0.1), tmp_path / f"run{parts}", model=model)
        results.append((records(path, "train"), {key: value.double() for key, value in model.state_dict().items()}))
    whole, weights = results[0]
    for lines, state in results[1:]:
        # Float32 sums in another order; the class weights and ignored pixels differ from part to part.
        assert [line["ce"] for line in lines] == pytest.approx([line["ce"] for line in whole], rel=1e-5)
        for key, value in state.items():
            torch.testing.assert_close(value, weights[key], rtol=1e-4, atol=1e-6)


def test_gradients_are_clipped_to_the_norm(tmp_path: Path) -> None:
    torch.manual_seed(5)
    model = GroupNormed()
    before = {key: value.clone() for key, value in model.state_dict().items()}
    settings = {"train__steps": 1, "method__name": "ce", "train__optimizer": "sgd", "train__momentum": 0.0}
    train(
        recipe(**settings, train__lr=1.0, train__weight_decay=0.0, train__clip_norm=0.01), tmp_path / "run", model=model
    )
    moved = torch.cat([(value - before[key]).flatten() for key, value in model.state_dict().items()]).norm()
    # One step of plain descent with rate 1 moves the weights by the gradient, here cut to this norm.
    assert float(moved) == pytest.approx(0.01, rel=1e-3)


class TurnsBad(Own):
    """Gives NaN for a batch that holds one certain image."""

    def __init__(self, bad: torch.Tensor) -> None:
        super().__init__(CLASSES)
        self.bad = bad

    def forward(self, x: torch.Tensor) -> dict[str, torch.Tensor]:
        logits = super().forward(x)["out"]
        found = (
            any(torch.allclose(image, self.bad, atol=1e-4) for image in x) if x.shape[1:] == self.bad.shape else False
        )
        return {"out": logits * (float("nan") if found else 1.0)}


# With every class gone from every image, the bad picture is seen only where another one made room for it.
@pytest.mark.parametrize("mixing", [None, {"images": 1.0, "classes": 1.0}])
def test_a_lost_loss_names_the_step_the_files_and_the_checkpoint(
    mixing: dict[str, float] | None, tmp_path: Path
) -> None:
    rng = np.random.default_rng(0)
    data = image_folder(tmp_path / "data", rng)
    plain: dict[str, Any] = {
        "train__flip": 0.0,
        "train__crop": None,
        "train__photometric": dict.fromkeys(("brightness", "contrast", "saturation", "hue"), 0.0),
    }
    if mixing is not None:
        plain |= {"method__with": ["class_mix"], "method__options": {"class_mix": mixing}}
    settings = recipe(data=f"folder:{data}", train__batch_size=2, train__steps=12, method__name="ce", **plain)
    from dropclass_deploy.core.preprocess import Preprocess

    pixels = open_dataset(f"folder:{data}", "train").image(5)
    bad = torch.from_numpy(Preprocess().normalise(pixels))[0]
    model = TurnsBad(bad)
    model.head = nn.Conv2d(8, 2, 1)
    with pytest.raises(DropclassError, match=r"the loss is not finite at step \d+ \(ce nan\)") as caught:
        train(settings, tmp_path / "run", model=model)
    message = str(caught.value)
    named = message.split("its images: ")[1].split(";")[0].split(", ")
    assert len(named) == (2 if mixing is None else 4)
    assert str(data / "images" / "5.png") in named[slice(None) if mixing is None else slice(1, None, 2)]
    assert "the last good checkpoint is" in message or "no checkpoint had been written yet" in message
    assert "train.lr (now 0.001)" in message


def image_folder(path: Path, rng: np.random.Generator) -> Path:
    from PIL import Image

    for name in ("images", "masks"):
        (path / name).mkdir(parents=True)
    for index in range(10):
        Image.fromarray(rng.integers(0, 256, (16, 16, 3), dtype=np.uint8)).save(path / "images" / f"{index}.png")
        Image.fromarray(rng.integers(0, 2, (16, 16), dtype=np.uint8)).save(path / "masks" / f"{index}.png")
    (path / "classes.yaml").write_text("classes: [{name: a}, {name: b}]")
    return path


def test_a_loss_that_explodes_is_lost_and_a_noisy_one_is_not() -> None:
    watch = LossWatch()
    assert all(watch.problem(2.0 + 0.1 * n) is None for n in range(30))
    assert watch.problem(300.0) is None
    assert "has exploded (the median of the last 31 was 3.5)" in str(watch.problem(1e4))
    assert watch.problem(float("inf")) == "the loss is not finite"
    # A loss near zero may come back to an ordinary size.
    low = LossWatch()
    assert all(low.problem(1e-6) is None for _ in range(30))
    assert low.problem(50.0) is None


def test_out_of_memory_says_what_to_lower(tmp_path: Path) -> None:
    # Forty terabytes for one picture: the system refuses at once.
    with pytest.raises(RecipeError, match=r"out of memory .*train\.crop 3600000×3600000.*lower train\.crop") as caught:
        train(
            recipe(train__crop=[3_600_000, 3_600_000], train__scale=[1.0, 1.0], train__batch_size=4), tmp_path / "run"
        )
    assert "train.accumulate=2" in str(caught.value)


def test_only_memory_is_told_as_memory() -> None:
    section = recipe().train
    with pytest.raises(RecipeError, match=r"out of memory \(CUDA out of memory\. Tried"), explained_memory(section):
        raise torch.OutOfMemoryError("CUDA out of memory. Tried to allocate 2.00 GiB.")
    with pytest.raises(RuntimeError, match="something else"), explained_memory(section):
        raise RuntimeError("something else")


def test_a_batch_that_cannot_be_cut_is_refused() -> None:
    with pytest.raises(RecipeError, match=r"batch_size 2 cannot be cut into accumulate 3 equal parts"):
        recipe(train__accumulate=3)


@pytest.mark.slow
def test_keys_that_do_not_change_the_result_may_change_on_resuming(tmp_path: Path) -> None:
    path = tmp_path / "run"
    with pytest.raises(TrainingInterruptedError):
        train(recipe(), path, reporter=Teller(step=3))
    changed = parse_recipe({**yaml_of(recipe()), "train": {**yaml_of(recipe())["train"], "keep_last": 1, "workers": 1}})
    train(changed, path, resume=True)
    assert len(checkpoint_folders(path)) == 1


def yaml_of(content: Recipe) -> dict[str, Any]:
    return content.model_dump(mode="json", by_alias=True)
