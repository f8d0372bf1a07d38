"""The loop on a tiny street: what a run leaves, that it can be stopped and resumed, and what it refuses."""

from __future__ import annotations

import json
import os
import shutil
import signal
from collections.abc import Iterator
from contextlib import contextmanager
from pathlib import Path
from typing import Any

import numpy as np
import pytest
import torch
from safetensors.torch import load_file
from torch import nn

from dropclass_deploy.core.errors import (
    DataError,
    DropclassError,
    ModelError,
    RecipeError,
    RunError,
    TrainingInterruptedError,
    UserError,
)
from dropclass_deploy.core.preprocess import Preprocess
from dropclass_deploy.core.progress import Advance
from dropclass_deploy.data.registry import open_dataset
from dropclass_deploy.training import Recipe, evaluate_network, load_run, train
from dropclass_deploy.training.recipe import parse_recipe

DATA = "synthetic:size=32x48,train=12,val=4,unbiased=2,seed=3"


def recipe(**changes: Any) -> Recipe:
    content: dict[str, Any] = {
        "data": DATA,
        "model": {"name": "unet", "options": {"width": 4, "depth": 2}},
        "method": {"name": "dropclass"},
        "train": {
            "steps": 6,
            "batch_size": 2,
            "crop": [32, 32],
            "log_every": 1,
            "validate_every": 3,
            "checkpoint_every": 3,
            "device": "cpu",
            "lr": 1e-3,
        },
    }
    for path, value in changes.items():
        target = content
        *parents, last = path.split("__")
        for part in parents:
            target = target.setdefault(part, {})
        target[last] = value
    return parse_recipe(content)


class Teller:
    """A reporter that keeps its notes, and sends this process a signal after a given step."""

    def __init__(self, step: int | None = None, number: int = signal.SIGTERM) -> None:
        self.notes: list[str] = []
        self._step, self._number = step, number

    def note(self, text: str) -> None:
        self.notes.append(text)

    @contextmanager
    def phase(self, title: str) -> Iterator[Advance]:
        def advance(done: int, total: int, status: str = "", /) -> None:
            if title == "training" and done == self._step:
                os.kill(os.getpid(), self._number)

        yield advance


def records(run: Path, kind: str) -> list[dict[str, Any]]:
    lines = [json.loads(line) for line in (run / "metrics.jsonl").read_text().splitlines()]
    return [line for line in lines if line["kind"] == kind]


def contents(folder: Path) -> dict[str, bytes]:
    return {str(path.relative_to(folder)): path.read_bytes() for path in folder.rglob("*") if path.is_file()}


@pytest.fixture(scope="module")
def run(tmp_path_factory: pytest.TempPathFactory) -> Path:
    return train(recipe(), tmp_path_factory.mktemp("trained") / "run")


def test_a_run_has_every_file_of_the_contract(run: Path) -> None:
    names = {path.name for path in run.iterdir()}
    assert names == {
        "recipe.yaml",
        "model.safetensors",
        "branch.safetensors",
        "model.json",
        "metrics.jsonl",
        "evaluation.json",
        "curves.png",
        "checkpoints",
        "best",
    }


def test_every_loss_term_stands_in_the_metrics_by_name(run: Path) -> None:
    lines = records(run, "train")
    assert [line["step"] for line in lines] == [1, 2, 3, 4, 5, 6]
    for line in lines:
        progress = line["progress"]
        total = (1 - progress) * line["ce"] + progress * line["ce_drop"] + 10 * line["suppression"]
        # Float32 sums of three terms of size 1 to 10.
        assert line["loss"] == pytest.approx(total, rel=1e-5)
        assert (line["suppression"] > 0) == (line["dropped"] is not None)
    assert any(line["dropped"] is not None for line in lines)


def test_validation_lines_hold_every_class(run: Path) -> None:
    lines = records(run, "val")
    assert [line["step"] for line in lines] == [3, 6]
    assert list(lines[0]["iou"]) == list(open_dataset(DATA, "val").classes.names)


def test_both_deploy_heads_are_evaluated_and_can_be_loaded_again(run: Path) -> None:
    evaluation = json.loads((run / "evaluation.json").read_text())
    assert set(evaluation["heads"]) == {"plain", "folded"}
    loaded, dataset = load_run(run), open_dataset(DATA, "val")
    for head in ("plain", "folded"):
        result = evaluate_network(loaded.network(head), dataset, loaded.preprocess, rare=loaded.classes.rare)
        stored = [row["iou"] for row in evaluation["heads"][head]["classes"]]
        expected = [None if np.isnan(value) else value for value in result.iou]
        # The same weights and code: the same masks, so the same ratios of counts.
        assert stored == expected
    assert evaluation["selected"] == "plain"


def test_rare_classes_come_from_the_training_pixels(run: Path) -> None:
    content = json.loads((run / "model.json").read_text())
    dataset = open_dataset(DATA, "train")
    labels = np.concatenate([dataset.mask(index).ravel() for index in range(len(dataset))])
    counts = np.bincount(labels[labels != 255], minlength=len(dataset.classes))
    assert content["class_pixels"] == counts.tolist()
    assert content["classes"]["rare"] == sorted(np.argsort(counts, kind="stable")[: len(counts) // 2].tolist())


@pytest.mark.parametrize("number", [signal.SIGTERM, signal.SIGINT])
def test_a_stopped_run_goes_on_as_if_it_had_never_stopped(run: Path, tmp_path: Path, number: int) -> None:
    path = tmp_path / "run"
    with pytest.raises(TrainingInterruptedError, match=r"after step 3 of 6; the state is saved.*--resume"):
        train(recipe(), path, reporter=Teller(step=3, number=number))
    with pytest.raises(RunError, match=r"has not finished.*--resume"):
        load_run(path)
    torch.manual_seed(999)  # whatever the process did in between
    train(recipe(), path, resume=True)
    whole, resumed = load_file(run / "model.safetensors"), load_file(path / "model.safetensors")
    assert whole.keys() == resumed.keys()
    assert all(torch.equal(whole[key], resumed[key]) for key in whole)
    terms = ("step", "loss", "ce", "ce_drop", "suppression", "dropped", "lr")
    assert [[line[t] for t in terms] for line in records(path, "train")] == [
        [line[t] for t in terms] for line in records(run, "train")
    ]


def test_resuming_a_complete_run_does_nothing(run: Path) -> None:
    before = contents(run)
    teller = Teller()
    train(recipe(), run, resume=True, reporter=teller)
    assert contents(run) == before
    assert any("complete" in note for note in teller.notes)


def test_resume_with_another_recipe_names_the_difference(run: Path) -> None:
    with pytest.raises(RecipeError, match=r"another recipe: method\.alpha was 10\.0 and is now 1\.0"):
        train(recipe(method__alpha=1.0), run, resume=True)


def test_resume_of_a_folder_that_is_no_run_is_refused(tmp_path: Path) -> None:
    with pytest.raises(RunError, match="is not a run folder"):
        train(recipe(), tmp_path, resume=True)


def test_an_existing_run_is_refused_and_kept(run: Path) -> None:
    before = (run / "model.safetensors").read_bytes()
    with pytest.raises(UserError, match=r"exists already.*--overwrite"):
        train(recipe(), run)
    assert (run / "model.safetensors").read_bytes() == before


def test_overwrite_replaces_runs_only(tmp_path: Path) -> None:
    (tmp_path / "thesis.txt").write_text("years of work")
    with pytest.raises(UserError, match=r"holds other things \(it has no metrics\.jsonl\)"):
        train(recipe(), tmp_path, overwrite=True)
    assert (tmp_path / "thesis.txt").read_text() == "years of work"


def test_bad_data_do_not_cost_the_old_run(tmp_path: Path) -> None:
    (tmp_path / "recipe.yaml").write_text("old")
    (tmp_path / "metrics.jsonl").write_text("")
    with pytest.raises(DataError, match="nowhere"):
        train(recipe(data="camvid:nowhere"), tmp_path, overwrite=True)
    assert (tmp_path / "recipe.yaml").read_text() == "old"


def test_the_same_seed_gives_the_same_weights_and_another_seed_others(run: Path, tmp_path: Path) -> None:
    again = load_file(train(recipe(), tmp_path / "again") / "model.safetensors")
    other = load_file(train(recipe(train__seed=1), tmp_path / "other") / "model.safetensors")
    first = load_file(run / "model.safetensors")
    assert all(torch.equal(first[key], again[key]) for key in first)
    assert not torch.equal(first["classifier.weight"], other["classifier.weight"])


def test_plain_cross_entropy_has_one_head_and_no_branch(tmp_path: Path) -> None:
    path = train(recipe(method__name="ce"), tmp_path / "run")
    assert not (path / "branch.safetensors").exists()
    assert load_run(path).folded is None
    assert set(json.loads((path / "evaluation.json").read_text())["heads"]) == {"plain"}
    assert {"ce", "loss"} <= set(records(path, "train")[0])
    with pytest.raises(RunError, match="no folded head"):
        load_run(path).network("folded")


def test_the_control_keeps_its_block_in_the_deployed_model(tmp_path: Path) -> None:
    path = train(recipe(method__name="ce+block"), tmp_path / "run")
    state = load_file(path / "model.safetensors")
    assert state["classifier.block.conv.weight"].shape == (4, 4, 1, 1)
    network = load_run(path).model
    assert not network.training
    images = torch.randn(1, 3, 32, 32)
    features: list[torch.Tensor] = []
    network.get_submodule("classifier").register_forward_pre_hook(lambda _m, inputs: features.append(inputs[0]))
    network(images)
    head = network.get_submodule("classifier")
    assert torch.equal(head(features[0]), head.classifier(head.block(features[0])))


class Own(nn.Module):
    def __init__(self, classes: int) -> None:
        super().__init__()
        self.body = nn.Sequential(nn.Conv2d(3, 8, 3, padding=1), nn.BatchNorm2d(8), nn.ReLU())
        self.head = nn.Conv2d(8, classes, 1)

    def forward(self, x: torch.Tensor) -> dict[str, torch.Tensor]:
        return {"out": self.head(self.body(x))}


def test_a_users_own_model_is_trained_in_place(tmp_path: Path) -> None:
    model = Own(len(open_dataset(DATA, "val").classes))
    before = {key: value.clone() for key, value in model.state_dict().items()}
    path = train(recipe(), tmp_path / "run", model=model, preprocess=Preprocess(mean=(0, 0, 0), std=(1, 1, 1)))
    assert model.state_dict().keys() == before.keys()
    assert not torch.equal(model.head.weight, before["head.weight"])
    with pytest.raises(RunError, match="network given as a Python object"):
        load_run(path)
    loaded = load_run(path, model=Own(len(open_dataset(DATA, "val").classes)))
    assert torch.equal(loaded.model.get_submodule("head").weight, model.head.weight)
    assert loaded.preprocess == Preprocess(mean=(0, 0, 0), std=(1, 1, 1))


def test_a_model_of_another_class_count_is_refused(tmp_path: Path) -> None:
    with pytest.raises(ModelError, match=r"gives logits of 3 classes.*expected \d+"):
        train(recipe(), tmp_path / "run", model=Own(3))
    assert not (tmp_path / "run").exists()


def test_a_loss_that_is_not_finite_stops_with_the_step(tmp_path: Path) -> None:
    with pytest.raises(DropclassError, match=r"not finite at step \d.*lower train\.lr"):
        train(recipe(train__lr=1e30, train__optimizer="sgd"), tmp_path / "run")


def test_a_gpu_that_is_not_there_is_one_clear_error(tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.setattr(torch.cuda, "is_available", lambda: False)
    with pytest.raises(RecipeError, match=r"no CUDA device.*train\.device: cpu"):
        train(recipe(train__device="cuda"), tmp_path / "run")


@pytest.mark.parametrize(
    ("name", "break_it", "message"),
    [
        ("model.json", b"{", "model.json cannot be read"),
        ("model.json", b"{}", r"model\.json does not fit at name"),
        ("model.json", b"[1]", r"model\.json holds list"),
        ("evaluation.json", b"{", r"evaluation\.json cannot be read"),
        ("model.safetensors", b"not weights", "does not fit"),
        ("branch.safetensors", None, "branch.safetensors is missing"),
    ],
)
def test_a_damaged_run_is_refused(run: Path, tmp_path: Path, name: str, break_it: bytes | None, message: str) -> None:
    shutil.copytree(run, tmp_path, dirs_exist_ok=True)
    if break_it is None:
        (tmp_path / name).unlink()
    else:
        (tmp_path / name).write_bytes(break_it)
    with pytest.raises(RunError, match=message):
        load_run(tmp_path)


def test_a_folder_that_is_no_run_is_refused(tmp_path: Path) -> None:
    with pytest.raises(RunError, match=r"is not a run folder: it has no recipe\.yaml.*dropclass train"):
        load_run(tmp_path)


def test_bfloat16_on_the_cpu_trains(tmp_path: Path) -> None:
    path = train(recipe(train__precision="bf16", train__steps=3), tmp_path / "run")
    assert all(np.isfinite(line["loss"]) for line in records(path, "train"))
