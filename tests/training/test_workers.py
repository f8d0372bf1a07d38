"""How many processes read ahead, and what the log says of the time spent waiting for them."""

from __future__ import annotations

import os
import shutil
import subprocess
import sys
import textwrap
import time
from collections.abc import Iterator
from contextlib import contextmanager
from pathlib import Path
from types import SimpleNamespace
from typing import Any

import numpy as np
import pytest
import torch
from PIL import Image
from test_trainer import DATA, Own, recipe, records

from dropclass_deploy.core.progress import Advance
from dropclass_deploy.data.registry import open_dataset
from dropclass_deploy.data.synthetic import SyntheticDataset
from dropclass_deploy.training import train
from dropclass_deploy.training.batches.workers import usable_cores, worker_count
from dropclass_deploy.training.records.data_wait import DataWait

CLASSES = len(open_dataset(DATA, "val").classes)


@pytest.fixture(scope="module")
def files(tmp_path_factory: pytest.TempPathFactory) -> Path:
    path = tmp_path_factory.mktemp("files")
    for name in ("images", "masks"):
        (path / name).mkdir()
    for index in range(4):
        Image.fromarray(np.zeros((8, 8, 3), np.uint8)).save(path / "images" / f"{index}.png")
        Image.fromarray(np.full((8, 8), index % 2, np.uint8)).save(path / "masks" / f"{index}.png")
    (path / "classes.yaml").write_text("classes: [{name: a}, {name: b}]")
    return path


@pytest.mark.parametrize(
    ("asked", "steps", "processes", "cores", "expected"),
    [
        (None, 1000, 1, 2, 1),
        (None, 1000, 1, 1, 0),
        (None, 1000, 1, 64, 8),
        (None, 1000, 4, 16, 3),
        (None, 1000, 4, 4, 0),
        (None, 1000, 8, 4, 0),  # more processes than cores: never below none
        (None, 127, 1, 16, 0),  # 254 images are over before workers have started
        (None, 128, 1, 16, 8),
        (0, 1000, 1, 16, 0),
        (5, 1, 4, 1, 5),
    ],
)
def test_workers_by_the_machine(
    files: Path, asked: int | None, steps: int, processes: int, cores: int, expected: int
) -> None:
    section = recipe(train__workers=asked, train__batch_size=2).train
    dataset = open_dataset(f"folder:{files}", "train")
    assert worker_count(section, dataset, steps=steps, processes=processes, cores=cores) == expected


@pytest.mark.slow
def test_no_worker_is_spawned_unasked(files: Path) -> None:
    # In a process of its own: the way of starting processes is chosen once.
    program = textwrap.dedent(f"""
        import multiprocessing
        multiprocessing.set_start_method("spawn")
        from dropclass_deploy.data.registry import open_dataset
        from dropclass_deploy.training.batches.workers import worker_count
        from dropclass_deploy.training.recipe.sections import TrainSection
        for asked in (None, 2):
            section = TrainSection(steps=1000, workers=asked)
            print(worker_count(section, open_dataset("folder:{files}", "train"), steps=1000, processes=1, cores=8))
    """)
    result = subprocess.run([sys.executable, "-c", program], capture_output=True, text=True, check=True)
    assert result.stdout.split() == ["0", "2"]


def test_workers_leave_shared_memory_room(files: Path, monkeypatch: pytest.MonkeyPatch) -> None:
    dataset = open_dataset(f"folder:{files}", "train")
    section = recipe(train__workers=None, train__batch_size=8, train__crop=[512, 1024]).train
    # A batch is 4 bytes a pixel, 16 MiB; a worker holds two, and half of what is free is theirs: 64 MiB, 256 MiB.
    for free, expected in ((64, 1), (256, 4)):
        monkeypatch.setattr(shutil, "disk_usage", lambda _path, free=free: SimpleNamespace(free=free * 2**20))
        assert worker_count(section, dataset, steps=1000, processes=1, cores=64) == expected
        # Whole images that a curriculum cuts: the largest crop counts.
        whole = section.model_copy(update={"crop": None})
        assert worker_count(whole, dataset, steps=1000, processes=1, cores=64, crop=(512, 1024)) == expected


def test_images_in_memory_need_no_workers() -> None:
    dataset = open_dataset(DATA, "train")
    assert worker_count(recipe().train, dataset, steps=10**6, processes=1, cores=64) == 0
    assert recipe().train.workers is None


def test_the_cores_are_those_that_the_process_may_use() -> None:
    allowed = os.sched_getaffinity(0)
    try:
        os.sched_setaffinity(0, {min(allowed)})
        assert usable_cores() == 1
    finally:
        os.sched_setaffinity(0, allowed)


class Slow(Own):
    """Takes a tenth of a second a step."""

    def forward(self, x: torch.Tensor) -> dict[str, torch.Tensor]:
        if self.training:
            time.sleep(0.1)
        return super().forward(x)


class Lines:
    """Keeps what stands beside the bar."""

    def __init__(self) -> None:
        self.notes: list[str] = []
        self.status: list[str] = []

    def note(self, text: str) -> None:
        self.notes.append(text)

    @contextmanager
    def phase(self, title: str) -> Iterator[Advance]:
        def advance(done: int, total: int, status: str = "", /) -> None:
            if title == "training" and status:
                self.status.append(status)

        yield advance


def slow_images(monkeypatch: pytest.MonkeyPatch, seconds: float) -> None:
    quick = SyntheticDataset.image

    def image(self: SyntheticDataset, index: int) -> Any:
        time.sleep(seconds)
        return quick(self, index)

    monkeypatch.setattr(SyntheticDataset, "image", image)


SETTINGS = {"method__name": "ce", "train__steps": 8, "train__log_every": 4, "train__validate_every": 8}


def test_a_slow_data_set_is_what_the_time_goes_into(tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> None:
    slow_images(monkeypatch, 0.1)
    lines = Lines()
    path = train(recipe(**SETTINGS), tmp_path / "run", model=Own(CLASSES), reporter=lines)
    last = records(path, "train")[-1]
    # 0.2 s a step for data, a few ms for the network.
    assert last["data_share"] > 0.7
    # The last step waits for no batch after it: three waits in this window of eight images.
    assert 2 < last["images_per_s"] < 8 / 0.6
    assert lines.status[-1].endswith(f"{last['images_per_s']:.1f} images/s  data {last['data_share']:.0%}")


@pytest.mark.slow
def test_workers_take_the_data_off_the_critical_path(tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> None:
    slow_images(monkeypatch, 0.03)
    shares = {}
    for workers in (0, 1):
        settings = {**SETTINGS, "train__steps": 12, "train__workers": workers}
        path = train(recipe(**settings), tmp_path / str(workers), model=Slow(CLASSES))
        shares[workers] = records(path, "train")[-1]["data_share"]
    # 60 ms of data to 100 ms of network: 0.375 one after the other, nothing side by side; more of both on a busy machine.
    assert shares[0] > 0.2
    assert shares[1] < 0.7 * shares[0]


@pytest.mark.slow
def test_validation_is_no_waiting_for_data(tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> None:
    class LateToEvaluate(Slow):
        def forward(self, x: torch.Tensor) -> dict[str, torch.Tensor]:
            if not self.training:
                time.sleep(0.1)
            return super().forward(x)

    settings = {**SETTINGS, "train__validate_every": 1, "train__steps": 4, "train__log_every": 1}
    path = train(recipe(**settings), tmp_path / "run", model=LateToEvaluate(CLASSES))
    # Four images of 0.1 s were evaluated before each of these steps of 0.1 s.
    assert all(line["data_share"] < 0.3 for line in records(path, "train")[1:])


def test_the_hint_comes_once_after_five_seconds_and_names_the_key() -> None:
    wait = DataWait(workers=1, cores=2)
    assert wait.hint(0.9, 60) is None  # the workers start
    assert wait.hint(0.5, 3) is None  # too short to judge
    said = wait.hint(0.3, 3)
    assert said is not None
    assert said.startswith("40% of the time goes by waiting for data: set train.workers higher (now 1;")
    assert "may use 2 cores)" in said
    assert wait.hint(0.9, 60) is None  # once


def test_a_little_waiting_is_no_reason_for_a_hint() -> None:
    wait = DataWait(workers=0, cores=1)
    assert all(wait.hint(0.3, 10) is None for _ in range(20))
    # Judged by itself: the good time before does not hide it.
    assert wait.hint(0.31, 5) is not None
