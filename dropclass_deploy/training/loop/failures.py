"""What can go wrong in the middle of a training, told so that it can be mended: a lost loss, and memory."""

from __future__ import annotations

import math
from collections import deque
from collections.abc import Iterator, Sequence
from contextlib import contextmanager
from statistics import median

import torch

from dropclass_deploy.core.errors import DropclassError, RecipeError, first_line
from dropclass_deploy.training.methods import StepLoss
from dropclass_deploy.training.recipe import TrainSection

_WINDOW = 100
_SEEN_ENOUGH = 20
_FACTOR = 1000.0
_FLOOR = 0.1
_SHOWN = 8


class LossWatch:
    """Says when a loss is lost: not finite, or a thousand times the median of the last hundred.

    A noisy step is ten times the median at worst; a thousand times is a network that has diverged, which a checkpoint
    must not keep. A median under 0.1 counts as 0.1: a loss near zero may jump back to an ordinary one.
    """

    def __init__(self) -> None:
        self._recent: deque[float] = deque(maxlen=_WINDOW)

    def state_dict(self) -> list[float]:
        """For a checkpoint: the losses remembered."""
        return list(self._recent)

    def load_state_dict(self, state: Sequence[float]) -> None:
        """Go on from a checkpoint."""
        self._recent = deque(state, maxlen=_WINDOW)

    def problem(self, loss: float) -> str | None:
        """What is wrong with this loss, or None; a good one is remembered."""
        if not math.isfinite(loss):
            return "the loss is not finite"
        if len(self._recent) >= _SEEN_ENOUGH:
            usual = median(self._recent)
            if loss > _FACTOR * max(usual, _FLOOR):
                return f"the loss has exploded (the median of the last {len(self._recent)} was {usual:.3g})"
        self._recent.append(loss)
        return None


def lost_step(
    problem: str, loss: StepLoss, train: TrainSection, step: int, files: Sequence[str], last: str
) -> DropclassError:
    """The error: the step (from 1), the terms, the batch's files, the checkpoint to go back to, and what to do."""
    terms = ", ".join(f"{name} {float(value):.4g}" for name, value in loss.terms.items())
    more = f" and {len(files) - _SHOWN} more" if len(files) > _SHOWN else ""
    lower = f"lower train.lr (now {train.lr:g}), set train.clip_norm (now {train.clip_norm:g})"
    if train.precision != "fp32":
        lower += f", or train.precision fp32 (now {train.precision})"
    return DropclassError(
        f"{problem} at step {step} ({terms}); its images: {', '.join(files[:_SHOWN])}{more}; {last}; "
        f"look at these images and their masks, then start again with another setting: {lower}; "
        "a checkpoint's model.safetensors can be its model.weights"
    )


@contextmanager
def explained_memory(train: TrainSection, processes: int = 1) -> Iterator[None]:
    """Out of memory inside the block becomes one line that says which of batch, crop, precision and workers to lower.

    Args:
        train: the settings at work.
        processes: how many share a batch.

    Raises:
        RecipeError: for memory; every other error passes.
    """
    try:
        yield
    except (MemoryError, RuntimeError, OSError) as error:
        if _lost_a_worker(error):
            raise RecipeError(
                f"a process that reads images was killed ({first_line(error)}): the machine's memory, or the memory that its "
                f"processes share, was used up",
                remedy=f"lower train.workers (now {_workers(train)}; 0 reads without further processes); in a container, "
                "give it more shared memory (docker run --shm-size 8g)",
            ) from error
        if not _is_memory(error):
            raise
        raise RecipeError(
            f"out of memory ({first_line(error)}) with train.batch_size {train.batch_size}{_parts(train)}, train.crop "
            f"{_crop(train)}, train.precision {train.precision}",
            remedy="; or ".join(_advice(train, processes)) or "take a machine with more memory, or a smaller model",
        ) from error


@contextmanager
def explained_evaluation_memory() -> Iterator[None]:
    """Out of memory inside the block, where whole images are evaluated one by one, becomes one line.

    Raises:
        RecipeError: for memory; every other error passes.
    """
    try:
        yield
    except (MemoryError, RuntimeError, OSError) as error:
        if not _is_memory(error):
            raise
        raise RecipeError(
            f"out of memory ({first_line(error)}) while evaluating whole validation images, one at a time in float32",
            remedy="set preprocess.size: [height, width], to which every image is then resized; or take a smaller model",
        ) from error


_MEMORY_WORDS = ("out of memory", "allocate memory", "not enough memory", "status_alloc_failed")
_WORKER_WORDS = ("exited unexpectedly", "killed by signal", "out of shared memory")


def _is_memory(error: BaseException) -> bool:
    """torch raises its own error on a GPU, a plain RuntimeError on the CPU; libraries have words of their own."""
    if isinstance(error, MemoryError | torch.OutOfMemoryError):
        return True
    return any(words in str(error).lower() for words in _MEMORY_WORDS)


def _lost_a_worker(error: BaseException) -> bool:
    text = str(error).lower()
    return "worker" in text and any(words in text for words in _WORKER_WORDS)


def _advice(train: TrainSection, processes: int) -> list[str]:
    advice = []
    if train.precision == "fp32" and torch.cuda.is_available() and train.device != "cpu":
        advice.append("set train.precision=bf16: about half the memory")
    parts = _more_parts(train, processes)
    if parts is not None:
        advice.append(
            f"set train.accumulate={parts}: the same batch, fewer images at a time; or lower train.batch_size"
        )
    if train.crop is None:
        advice.append("set train.crop: whole images are trained on")
    elif (smaller := [_smaller(side) for side in train.crop]) != list(train.crop):
        advice.append(f"lower train.crop, for example to {smaller}")
    return advice


def _more_parts(train: TrainSection, processes: int) -> int | None:
    """The next larger number of equal parts that leaves two images each, the least that BatchNorm can work with."""
    mine = train.batch_size // processes
    larger = range(train.accumulate + 1, mine // 2 + 1)
    return next((parts for parts in larger if mine % parts == 0), None)


def _smaller(side: int) -> int:
    """About 0.7 of a side, a multiple of 32 where that is possible: half the pixels."""
    return min(side, max(32, side * 7 // 10 // 32 * 32))


def _workers(train: TrainSection) -> str:
    return "null, chosen by the machine" if train.workers is None else str(train.workers)


def _parts(train: TrainSection) -> str:
    return f" in {train.accumulate} parts" if train.accumulate > 1 else ""


def _crop(train: TrainSection) -> str:
    return "null (whole images)" if train.crop is None else f"{train.crop[0]}×{train.crop[1]}"
