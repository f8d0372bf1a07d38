"""The machine and the software that a latency belongs to."""

from __future__ import annotations

import os
import platform
from pathlib import Path
from typing import Any

from dropclass_deploy.serving.versions import library_versions

CPUINFO = Path("/proc/cpuinfo")
NVIDIA_GPUS = Path("/proc/driver/nvidia/gpus")


def read_environment(threads: int | None) -> dict[str, Any]:
    """CPU model, cores, affinity, load average and library versions, as JSON values; null for what cannot be read.

    Args:
        threads: of one operator, as asked for; None when the runtimes chose.
    """
    return {
        "cpu": cpu_model(),
        "machine": platform.machine(),
        "system": f"{platform.system()} {platform.release()}",
        "cores": os.cpu_count(),
        "affinity": len(os.sched_getaffinity(0)) if hasattr(os, "sched_getaffinity") else None,
        "threads": threads,
        "omp_num_threads": os.environ.get("OMP_NUM_THREADS"),
        "load_average_before": load_average(),
        "versions": library_versions(("torch", "openvino", "tensorrt")),
    }


def cpu_model(cpuinfo: Path = CPUINFO) -> str | None:
    """The processor's name as the kernel tells it, or what Python knows."""
    try:
        lines = cpuinfo.read_text(encoding="utf-8", errors="replace").splitlines()
    except OSError:
        lines = []
    names = (line.partition(":")[2].strip() for line in lines if line.lower().startswith("model name"))
    return next(names, "") or platform.processor() or None


def gpu_models(driver: Path = NVIDIA_GPUS) -> str | None:
    """Names of the GPUs that NVIDIA's driver has, in the order of their bus addresses; None without any."""
    names = []
    for path in sorted(driver.glob("*/information")):
        try:
            lines = path.read_text(encoding="utf-8", errors="replace").splitlines()
        except OSError:
            continue
        names += [line.partition(":")[2].strip() for line in lines if line.startswith("Model:")]
    return ", ".join(names) or None


def load_average() -> list[float] | None:
    """Runnable processes over 1, 5 and 15 minutes; None where the system has no such figure."""
    try:
        return [round(value, 2) for value in os.getloadavg()]
    except (AttributeError, OSError):
        return None
