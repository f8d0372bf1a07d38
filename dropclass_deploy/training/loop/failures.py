"""What can go wrong in the middle of a training, told so that it can be mended: a lost loss, and memory."""

from __future__ import annotations

import math
from collections import deque
from collections.abc import Iterator, Sequence
from contextlib import contextmanager
from statistics import median

import torch

from dropclass_deploy.core.errors import DropclassError, RecipeError
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

    def problem(self, loss: float) -> str | None:
        """What is wrong with this loss, or None; a good one is remembered."""
        if not math.isfinite(loss):
            return "is not finite"
        if len(self._recent) >= _SEEN_ENOUGH:
            usual = median(self._recent)
            if loss > _FACTOR * max(usual, _FLOOR):
                return f"has exploded (the median of the last {len(self._recent)} was {usual:.3g})"
        self._recent.append(loss)
        return None


def lost_loss(
    problem: str, loss: StepLoss, train: TrainSection, step: int, files: Sequence[str], last: str
) -> DropclassError:
    """The error: the step, the terms, the batch's files, the checkpoint to go back to, and what to do."""
    terms = ", ".join(f"{name} {float(value):.4g}" for name, value in loss.terms.items())
    more = f" and {len(files) - _SHOWN} more" if len(files) > _SHOWN else ""
    lower = f"lower train.lr (now {train.lr:g}), set train.clip_norm (now {train.clip_norm:g})"
    if train.precision != "fp32":
        lower += f", or train.precision fp32 (now {train.precision})"
    return DropclassError(
        f"the loss {problem} at step {step} ({terms}); its images: {', '.join(files[:_SHOWN])}{more}; {last}; "
        f"look at these images and their masks, then start again with another setting: {lower}; "
        "a checkpoint's model.safetensors can be its model.weights"
    )


@contextmanager
def explained_memory(train: TrainSection) -> Iterator[None]:
    """Out of memory inside the block becomes one line that says which of batch, crop and precision to lower.

    Raises:
        RecipeError: for memory; every other error passes.
    """
    try:
        yield
    except (MemoryError, RuntimeError) as error:
        if not _is_memory(error):
            raise
        reason = (str(error).strip().splitlines() or [type(error).__name__])[0][:160]
        raise RecipeError(
            f"out of memory ({reason}) with train.batch_size {train.batch_size}{_parts(train)}, train.crop "
            f"{_crop(train)}, train.precision {train.precision}",
            remedy="; or ".join(_advice(train)),
        ) from error


def _is_memory(error: BaseException) -> bool:
    """torch raises its own error on a GPU, a plain RuntimeError on the CPU, and workers' errors in other words."""
    if isinstance(error, MemoryError | torch.OutOfMemoryError):
        return True
    text = str(error).lower()
    return any(words in text for words in ("out of memory", "can't allocate memory", "not enough memory"))


def _advice(train: TrainSection) -> list[str]:
    advice = []
    if train.precision == "fp32" and torch.cuda.is_available() and train.device != "cpu":
        advice.append("set train.precision=bf16: about half the memory")
    part = train.batch_size // train.accumulate
    if part > 2:
        # Two images are the least that BatchNorm can work with.
        advice.append(
            f"set train.accumulate={_next_divisor(train)}: the same batch, fewer images at a time; or lower train.batch_size"
        )
    if train.crop is None:
        advice.append("set train.crop: whole images are trained on")
    else:
        advice.append(f"lower train.crop, for example to [{_smaller(train.crop[0])}, {_smaller(train.crop[1])}]")
    return advice


def _next_divisor(train: TrainSection) -> int:
    """The next larger number of equal parts."""
    larger = range(train.accumulate + 1, train.batch_size + 1)
    return next(parts for parts in larger if train.batch_size % parts == 0)


def _smaller(side: int) -> int:
    """About 0.7 of a side, a multiple of 32 where that is possible: half the pixels."""
    return max(32, side * 7 // 10 // 32 * 32)


def _parts(train: TrainSection) -> str:
    return f" in {train.accumulate} parts" if train.accumulate > 1 else ""


def _crop(train: TrainSection) -> str:
    return "null (whole images)" if train.crop is None else f"{train.crop[0]}×{train.crop[1]}"
