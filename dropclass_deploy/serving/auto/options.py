"""How ``auto`` looks for a configuration."""

from __future__ import annotations

import os
from dataclasses import dataclass

from dropclass_deploy.core.errors import UserError
from dropclass_deploy.core.progress import Reporter, Silent

CPU_RUNTIMES = ("onnxruntime", "openvino", "openvino-bf16")
GPU_RUNTIMES = ("onnxruntime-cuda", "onnxruntime-tensorrt", "tensorrt")


@dataclass(frozen=True)
class AutoOptions:
    """Options of ``choose``; contradictions are refused at construction.

    Attributes:
        runtimes: to be tried; those that this machine cannot run are reported and left out.
        threads: counts to be tried; empty for one and for all that this process may use.
        images: so many images of the data are timed in turn: the sparse head's time depends on what they show.
        rounds: over those images, at most.
        budget_minutes: no new gate starts after them; None for no limit.
        allow_insufficient: as for ``verify``.
        limit: at most so many images for the gate; None for the whole split.
        reporter: told about the phases.
    """

    runtimes: tuple[str, ...] = (*CPU_RUNTIMES, *GPU_RUNTIMES)
    threads: tuple[int, ...] = ()
    images: int = 4
    rounds: int = 10
    budget_minutes: float | None = None
    allow_insufficient: tuple[str, ...] = ()
    limit: int | None = None
    reporter: Reporter = Silent()  # noqa: RUF009 (it has no state)

    def __post_init__(self) -> None:
        known = (*CPU_RUNTIMES, *GPU_RUNTIMES)
        unknown = [name for name in self.runtimes if name not in known]
        if unknown or not self.runtimes:
            raise UserError(
                f"there is no runtime {unknown[0]!r}" if unknown else "no runtime is named",
                expected=f"some of {', '.join(known)}",
            )
        if min((*self.threads, self.images, self.rounds)) < 1:
            raise UserError("threads, images and rounds are below 1", expected="1 or more")

    def thread_counts(self) -> tuple[int, ...]:
        """The counts to be tried on a CPU, ascending."""
        cores = len(os.sched_getaffinity(0)) if hasattr(os, "sched_getaffinity") else os.cpu_count() or 1
        return tuple(sorted(set(self.threads or (1, cores))))
