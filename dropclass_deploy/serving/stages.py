"""What surrounds a step of segmentation: its clock, and the size that a network refused."""

from __future__ import annotations

from collections.abc import Iterator
from contextlib import contextmanager
from time import perf_counter_ns

from dropclass_deploy.core.errors import ArtifactError, UserError


@contextmanager
def timed(latency_ms: dict[str, float], stage: str) -> Iterator[None]:
    """Add the milliseconds that the block took to its stage, less those of the stages timed inside it."""
    before, started = sum(latency_ms.values()), perf_counter_ns()
    yield
    inside = sum(latency_ms.values()) - before
    latency_ms[stage] = latency_ms.get(stage, 0.0) + (perf_counter_ns() - started) / 1e6 - inside


@contextmanager
def size_named(size: tuple[int, ...]) -> Iterator[None]:
    """A network that refuses its input nearly always refuses the size (height, width): say which one it was."""
    try:
        yield
    except ArtifactError:
        raise
    except UserError as error:
        height, width = size
        raise UserError(
            f"the network cannot take an image of {width}×{height} pixels ({error.found})",
            expected="a size it was made for; networks of stride 32 need at least 32 pixels a side",
            remedy="leave the image out, or resize it",
        ) from error
