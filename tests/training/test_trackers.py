"""Trackers: TensorBoard for real, read back by its own reader; a tracker of ours for what fails."""

from __future__ import annotations

import math
from collections.abc import Iterator
from pathlib import Path
from typing import Any

import pytest
from accelerate import Accelerator
from accelerate.state import AcceleratorState
from accelerate.tracking import LOGGER_TYPE_TO_CLASS, GeneralTracker
from tensorboard.backend.event_processing.event_accumulator import EventAccumulator

from dropclass_deploy.core.errors import MissingExtraError, UserError
from dropclass_deploy.training.records import trackers
from dropclass_deploy.training.records.trackers import check_trackers, finish, log, scalars, start_trackers

CONFIG = {"data": "synthetic:", "train": {"lr": 0.1, "crop": [64, 64], "seed": 0}, "model": None}


@pytest.fixture
def accelerator() -> Iterator[Accelerator]:
    AcceleratorState._reset_state(reset_partial_state=True)
    yield Accelerator(cpu=True)
    AcceleratorState._reset_state(reset_partial_state=True)


def _train(step: int, loss: float) -> dict[str, Any]:
    return {"kind": "train", "step": step, "progress": 0.5, "lr": 0.1, "loss": loss, "ce": loss / 2, "dropped": 3}


def _val(step: int, **iou: float | None) -> dict[str, Any]:
    return {"kind": "val", "step": step, "miou": 0.5, "rare_miou": None, "iou": iou}


def _written(folder: Path) -> dict[str, list[tuple[int, float]]]:
    reader = EventAccumulator(str(folder / "tensorboard"))
    reader.Reload()
    # TensorBoard stores float32.
    return {
        tag: [(e.step, pytest.approx(e.value, rel=1e-6)) for e in reader.Scalars(tag)]
        for tag in reader.Tags()["scalars"]
    }


def test_tensorboard_reads_back_what_was_logged(accelerator: Accelerator, tmp_path: Path) -> None:
    start_trackers(accelerator, ["tensorboard"], tmp_path, "a run", CONFIG)
    for step in (10, 20):
        assert log(accelerator, _train(step, 1 / step), step) == ()
    assert log(accelerator, _val(20, road=0.9, sign=None), 20) == ()
    assert finish(accelerator) == ()
    assert _written(tmp_path) == {
        "train/loss": [(10, 0.1), (20, 0.05)],
        "train/ce": [(10, 0.05), (20, 0.025)],
        "train/lr": [(10, 0.1), (20, 0.1)],
        "val/miou": [(20, 0.5)],
        "iou/road": [(20, 0.9)],
    }


def test_tensorboard_shows_the_recipe_and_one_run_only(accelerator: Accelerator, tmp_path: Path) -> None:
    start_trackers(accelerator, ["tensorboard"], tmp_path, "a run", CONFIG)
    finish(accelerator)
    (written,) = (tmp_path / "tensorboard").iterdir()
    assert written.is_file()
    reader = EventAccumulator(str(tmp_path / "tensorboard"))
    reader.Reload()
    (event,) = reader.Tensors("recipe/text_summary")
    assert '"lr": 0.1' in event.tensor_proto.string_val[0].decode()


def test_a_resumed_run_shows_no_step_twice(accelerator: Accelerator, tmp_path: Path) -> None:
    start_trackers(accelerator, ["tensorboard"], tmp_path, "a run", CONFIG)
    for step in (10, 20, 30, 40):
        log(accelerator, _train(step, 1.0), step)
    finish(accelerator)
    # Killed after step 40; the last checkpoint was that of step 20.
    start_trackers(accelerator, ["tensorboard"], tmp_path, "a run", CONFIG, start=20)
    for step in (30, 40, 50):
        log(accelerator, _train(step, 2.0), step)
    finish(accelerator)
    assert _written(tmp_path)["train/loss"] == [(10, 1.0), (20, 1.0), (30, 2.0), (40, 2.0), (50, 2.0)]


def test_finish_can_be_called_twice_and_without_trackers(accelerator: Accelerator, tmp_path: Path) -> None:
    assert finish(accelerator) == ()
    start_trackers(accelerator, ["tensorboard"], tmp_path, "a run", CONFIG)
    finish(accelerator)
    assert finish(accelerator) == ()
    assert log(accelerator, _train(1, 1.0), 1) == ()


def test_no_trackers_write_nothing(accelerator: Accelerator, tmp_path: Path) -> None:
    start_trackers(accelerator, [], tmp_path, "a run", CONFIG)
    log(accelerator, _train(1, 1.0), 1)
    assert list(tmp_path.iterdir()) == []


def test_only_finite_numbers_are_sent() -> None:
    record = {"kind": "val", "step": 1, "miou": math.nan, "rare_miou": math.inf, "note": "x", "ok": True, "images": 3}
    assert scalars(record | {"iou": {"road": None, "a/b": 0.25}}) == {"val/images": 3, "iou/a/b": 0.25}


def test_an_unknown_tracker_lists_those_that_are_there() -> None:
    with pytest.raises(UserError, match=r"'tensorbord'; expected any of aim, clearml, .*, tensorboard, trackio, wandb"):
        check_trackers(["tensorbord"])
    with pytest.raises(UserError, match="lists 'all'"):
        check_trackers(["all"])
    with pytest.raises(UserError, match="'tensorboard' twice"):
        check_trackers(["tensorboard", "tensorboard"])


def test_a_missing_package_is_named(monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.setattr(trackers, "get_available_trackers", list)
    with pytest.raises(MissingExtraError, match=r"pip install 'dropclass-deploy\[tensorboard\]'"):
        check_trackers(["tensorboard"])
    with pytest.raises(UserError, match=r"'comet_ml' needs is not installed.*pip install comet-ml"):
        check_trackers(["comet_ml"])
    with pytest.raises(UserError, match="pip install wandb"):
        check_trackers(["wandb"])


class Service(GeneralTracker):
    """A tracker as a user may register one with Accelerate; it fails where it is told to."""

    name = "service"
    requires_logging_directory = False
    fails: str | None = None

    def __init__(self, run_name: str) -> None:
        super().__init__()
        self.seen: list[Any] = [run_name]

    @property
    def tracker(self) -> list[Any]:
        return self.seen

    def _do(self, what: str, seen: Any) -> None:
        if self.fails == what:
            raise ConnectionError(f"no route during {what}\nmore that nobody needs")
        self.seen.append(seen)

    def start(self) -> None:
        self._do("start", "started")

    def store_init_configuration(self, values: dict[str, Any]) -> None:
        self._do("configuration", values)

    def log(self, values: dict[str, Any], step: int | None = None, **kwargs: Any) -> None:
        self._do("log", (step, values))

    def finish(self) -> None:
        self._do("finish", "finished")


@pytest.fixture
def service(monkeypatch: pytest.MonkeyPatch) -> type[Service]:
    monkeypatch.setitem(LOGGER_TYPE_TO_CLASS, "service", Service)
    monkeypatch.setattr(trackers, "SUPPORTED", ("service", "tensorboard"))
    monkeypatch.setattr(trackers, "get_available_trackers", lambda: ["service", "tensorboard"])
    monkeypatch.setattr(Service, "fails", None)
    return Service


def test_other_trackers_get_a_flat_configuration(accelerator: Accelerator, service: type, tmp_path: Path) -> None:
    start_trackers(accelerator, ["service"], tmp_path, "a run", CONFIG)
    seen = accelerator.get_tracker("service", unwrap=True)
    log(accelerator, _val(7, road=0.5), 7)
    finish(accelerator)
    flat = {"data": "synthetic:", "train.lr": 0.1, "train.crop": "[64, 64]", "train.seed": 0, "model": "None"}
    assert seen == ["a run", "started", flat, (7, {"val/miou": 0.5, "iou/road": 0.5}), "finished"]


@pytest.mark.parametrize("where", ["start", "configuration"])
def test_one_that_cannot_start_is_one_clear_error(
    accelerator: Accelerator, service: type[Service], tmp_path: Path, where: str
) -> None:
    service.fails = where
    with pytest.raises(UserError, match=f"'service' cannot be started: no route during {where}; set it up"):
        start_trackers(accelerator, ["tensorboard", "service"], tmp_path, "a run", CONFIG)
    assert accelerator.trackers == []


def test_one_that_fails_later_is_let_go_and_the_others_go_on(
    accelerator: Accelerator, service: type[Service], tmp_path: Path
) -> None:
    start_trackers(accelerator, ["service", "tensorboard"], tmp_path, "a run", CONFIG)
    log(accelerator, _train(10, 1.0), 10)
    service.fails = "log"
    (note,) = log(accelerator, _train(20, 2.0), 20)
    assert note == "the tracker 'service' failed at step 20 and is left out from here: no route during log"
    assert log(accelerator, _train(30, 3.0), 30) == ()
    finish(accelerator)
    assert _written(tmp_path)["train/loss"] == [(10, 1.0), (20, 2.0), (30, 3.0)]


def test_one_that_cannot_be_closed_is_noted(accelerator: Accelerator, service: type[Service], tmp_path: Path) -> None:
    start_trackers(accelerator, ["service"], tmp_path, "a run", CONFIG)
    service.fails = "finish"
    assert finish(accelerator) == ("the tracker 'service' could not be closed: no route during finish",)
