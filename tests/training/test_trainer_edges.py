"""The loop at its edges: what it must not delete, where it may be stopped, models and data that are unusual."""

from __future__ import annotations

import json
import signal
from pathlib import Path
from typing import Any

import numpy as np
import pytest
import torch
from PIL import Image
from test_trainer import DATA, Own, Teller, recipe, records
from torch import nn

from dropclass_deploy.core.errors import DataError, DropclassError, RecipeError, RunError, TrainingInterruptedError
from dropclass_deploy.core.preprocess import Preprocess
from dropclass_deploy.data.registry import open_dataset
from dropclass_deploy.training import load_run, train
from dropclass_deploy.training.methods import BlockThenClassifier, present_classes
from dropclass_deploy.training.runs.checkpoint import checkpoint_folders

CLASSES = len(open_dataset(DATA, "val").classes)


def test_overwrite_spares_a_folder_with_anything_else_in_it(tmp_path: Path) -> None:
    path = train(recipe(train__steps=1), tmp_path / "run")
    (path / "thesis.txt").write_text("years of work")
    with pytest.raises(RunError, match=r"holds 'thesis\.txt', which no run writes"):
        train(recipe(train__steps=1), path, overwrite=True)
    assert (path / "thesis.txt").exists()
    assert (path / "model.safetensors").exists()


def test_overwrite_replaces_a_run_whole(tmp_path: Path) -> None:
    path = train(recipe(train__steps=1), tmp_path / "run")
    train(recipe(train__steps=2, method__name="ce"), path, overwrite=True)
    assert not (path / "branch.safetensors").exists()
    assert [line["step"] for line in records(path, "train")] == [1, 2]


def test_resume_and_overwrite_contradict_each_other(tmp_path: Path) -> None:
    with pytest.raises(RunError, match="both --resume and --overwrite"):
        train(recipe(), tmp_path / "run", resume=True, overwrite=True)


class StopAtEvaluation(Teller):
    """Sends the signal when the first network is evaluated after training."""

    def phase(self, title: str) -> Any:
        if title.startswith("evaluating"):
            signal.raise_signal(signal.SIGTERM)
        return super().phase(title)


def test_a_signal_during_the_last_evaluation_loses_no_step(tmp_path: Path) -> None:
    path = tmp_path / "run"
    with pytest.raises(TrainingInterruptedError, match=r"while evaluating the finished training.*--resume"):
        train(recipe(), path, reporter=StopAtEvaluation())
    assert checkpoint_folders(path)[0].name == "step-000006"
    train(recipe(), path, resume=True)
    assert load_run(path).evaluation is not None
    assert [line["step"] for line in records(path, "train")] == [1, 2, 3, 4, 5, 6]
    assert [line["step"] for line in records(path, "val")] == [3, 6]


@pytest.mark.parametrize("method", ["ce", "ce+block", "dropclass"])
def test_the_callers_module_is_not_patched(tmp_path: Path, method: str) -> None:
    model = Own(CLASSES)
    train(recipe(method__name=method, train__precision="bf16", train__steps=2), tmp_path / "run", model=model)
    assert "forward" not in vars(model)
    assert model(torch.zeros(1, 3, 8, 8))["out"].dtype == torch.float32


@pytest.mark.parametrize("method", ["ce", "ce+block", "dropclass"])
def test_a_users_run_is_loaded_into_the_very_model(tmp_path: Path, method: str) -> None:
    model = Own(CLASSES)
    path = train(recipe(method__name=method, train__steps=2), tmp_path / "run", model=model)
    before = model.head.state_dict()
    assert load_run(path, model=model).model is model
    assert all(torch.equal(value, before[key]) for key, value in model.head.state_dict().items())
    assert isinstance(model.head, BlockThenClassifier) == (method == "ce+block")
    content = json.loads((path / "model.json").read_text())
    assert (content["name"], content["options"], content["weights"]) == ("python", {}, None)


def test_the_hint_for_a_users_model_is_python(tmp_path: Path) -> None:
    with pytest.raises(TrainingInterruptedError, match=r"train\(recipe, '.*run', model=…, resume=True\)"):
        train(recipe(), tmp_path / "run", model=Own(CLASSES), reporter=Teller(step=2))
    with pytest.raises(RunError, match=r"model\.safetensors does not fit"):
        train(recipe(), tmp_path / "run", model=nn.Sequential(Own(CLASSES)), resume=True)


def test_a_recipe_without_a_model_needs_one_from_the_caller(tmp_path: Path) -> None:
    bare = recipe().model_copy(update={"model": None})
    with pytest.raises(RecipeError, match="names no model"):
        train(bare, tmp_path / "run")
    assert train(bare, tmp_path / "run", model=Own(CLASSES)).is_dir()


def test_part_of_the_preprocessing_keeps_the_rest_of_the_models_own(tmp_path: Path) -> None:
    lite0 = {"name": "lite0", "options": {"width": 8}}  # whose own is not ImageNet's
    path = train(recipe(model=lite0, preprocess={"size": [32, 48]}, train__crop=None, train__steps=1), tmp_path / "run")
    assert load_run(path).preprocess == Preprocess(mean=(0.5, 0.5, 0.5), std=(0.5, 0.5, 0.5), size=(32, 48))


class FixedSize(Own):
    """A network that takes 32×32 and nothing else."""

    def forward(self, x: torch.Tensor) -> dict[str, torch.Tensor]:
        if x.shape[-2:] != (32, 32):
            raise ValueError("32×32 only")
        return super().forward(x)


@pytest.mark.parametrize("method", ["ce", "ce+block", "dropclass"])
def test_a_model_of_one_size_trains_and_loads(tmp_path: Path, method: str) -> None:
    settings = {"method__name": method, "train__steps": 1, "preprocess": {"size": [32, 32]}}
    path = train(recipe(**settings), tmp_path / "run", model=FixedSize(CLASSES))
    assert load_run(path, model=FixedSize(CLASSES)).evaluation is not None


def test_a_first_step_that_explodes_does_not_speak_of_a_checkpoint(tmp_path: Path) -> None:
    with pytest.raises(DropclassError, match="no checkpoint had been written yet"):
        train(recipe(train__lr=1e30, train__optimizer="sgd"), tmp_path / "run")


def test_whole_images_of_two_sizes_are_refused_before_anything_is_written(tmp_path: Path) -> None:
    for name in ("images", "masks"):
        (tmp_path / "data" / name).mkdir(parents=True)
    for index in range(5):
        size = (16, 16 + index)
        Image.fromarray(np.zeros((*size, 3), np.uint8)).save(tmp_path / "data" / "images" / f"{index}.png")
        Image.fromarray(np.arange(size[0] * size[1]).reshape(size).astype(np.uint8) % 2).save(
            tmp_path / "data" / "masks" / f"{index}.png"
        )
    (tmp_path / "data" / "classes.yaml").write_text("classes: [{name: a}, {name: b}]")
    with pytest.raises(DataError, match=r"0 is 16×16 and 1 16×17.*train\.crop"):
        train(recipe(data=f"folder:{tmp_path / 'data'}", train__crop=None), tmp_path / "run")
    assert not (tmp_path / "run").exists()


def test_a_single_image_a_step_names_the_batch_size(tmp_path: Path) -> None:
    class Pooled(Own):
        def forward(self, x: torch.Tensor) -> dict[str, torch.Tensor]:
            features = self.body(x)
            return {"out": self.head(features + self.body[1](features.mean((2, 3), keepdim=True)))}

    with pytest.raises(RecipeError, match=r"train\.batch_size 1 .*at least 2 images"):
        train(recipe(train__batch_size=1, method__name="ce"), tmp_path / "run", model=Pooled(CLASSES))


def test_worker_processes_give_the_same_images(tmp_path: Path) -> None:
    none = train(recipe(train__steps=2), tmp_path / "none")
    two = train(recipe(train__steps=2, train__workers=2), tmp_path / "two")
    assert [line["loss"] for line in records(none, "train")] == [line["loss"] for line in records(two, "train")]


def test_present_classes_by_hand() -> None:
    labels = torch.tensor([[[0, 2], [255, 2]]], dtype=torch.uint8)
    assert present_classes(labels, 4).tolist() == [0, 2]
