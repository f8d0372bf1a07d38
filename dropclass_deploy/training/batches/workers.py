"""The processes that read and augment ahead of the steps: how many, and how they hear signals."""

from __future__ import annotations

import atexit
import multiprocessing
import os
import shutil
import signal
from pathlib import Path
from types import FrameType
from typing import Any

from dropclass_deploy.data.dataset import Dataset
from dropclass_deploy.training.batches.windows import Size
from dropclass_deploy.training.recipe import TrainSection

_MOST = 8
_WORTH_IMAGES = 256
_SHARED_MEMORY = Path("/dev/shm")


def usable_cores() -> int:
    """Cores that this process may run on."""
    return len(os.sched_getaffinity(0)) if hasattr(os, "sched_getaffinity") else os.cpu_count() or 1


def worker_count(
    train: TrainSection, dataset: Dataset, *, steps: int, processes: int, cores: int, crop: Size | None = None
) -> int:
    """Worker processes for one training process: ``train.workers``, or what is sensible when it is null.

    That is a core each, less one that feeds the network, at most 8 and no more than shared memory has room for; none where
    processes are spawned (macOS, Windows; Python 3.14's forkserver), for images that are held in memory rather than
    decoded, and none for under 256 images, which are over before the workers pay for their start.

    Args:
        train: the recipe's section.
        dataset: what they read.
        steps: still to come.
        processes: training processes that share the machine.
        cores: of the machine, usable by them together.
        crop: (height, width) of the largest crop of a curriculum.
    """
    if train.workers is not None:
        return train.workers
    if not _forks():
        return 0
    if dataset.image_path(0) is None or steps * train.batch_size < _WORTH_IMAGES * processes:
        return 0
    return max(0, min(_MOST, cores // processes - 1, _fitting(train.batch_size, crop or train.crop, processes)))


def _forks() -> bool:
    """Whether processes are forked: spawned ones run a script that has no main guard anew, each of them."""
    # Asked so, nothing is settled: the program may still choose.
    return (multiprocessing.get_start_method(allow_none=True) or multiprocessing.get_all_start_methods()[0]) == "fork"


def _fitting(batch_size: int, crop: Size | None, processes: int) -> int:
    """How many workers' batches, two each, half of the shared memory holds: a container often has 64 MiB of it."""
    if crop is None or not _SHARED_MEMORY.is_dir():
        return _MOST
    a_batch = 4 * crop[0] * crop[1] * batch_size // processes  # RGB and the mask
    return shutil.disk_usage(_SHARED_MEMORY).free // 2 // processes // max(1, 2 * a_batch)


def leave_signals_to_the_parent(_worker: int, *, closing: Any) -> None:
    """A signal to the whole process group must not kill the workers: the parent still finishes its step and saves.

    Only when the parent itself goes does it mean them: Python then ends its children by SIGTERM and waits for them.
    """

    def end(_number: int, _frame: FrameType | None) -> None:
        if closing.value:
            os._exit(0)

    signal.signal(signal.SIGINT, signal.SIG_IGN)
    signal.signal(signal.SIGTERM, end)


def closing_flag() -> Any:
    """A flag in shared memory that goes up when this process ends."""
    flag = multiprocessing.RawValue("b", 0)
    atexit.register(setattr, flag, "value", 1)
    return flag
