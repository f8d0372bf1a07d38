"""What a stored figure came from: code, versions, device."""

from __future__ import annotations

import platform
import subprocess
from importlib.metadata import version
from pathlib import Path
from typing import Any

import torch

import dropclass_deploy
from dropclass_deploy.serving.benchmark.environment import cpu_model

_LIBRARIES = ("torch", "torchvision", "timm", "accelerate", "numpy")


def made(device: str) -> dict[str, Any]:
    """What a part of a run is made by, the device as ``train.device``."""
    return {
        "code": code(),
        "versions": versions(),
        "device": device_name(device),
        "threads": torch.get_num_threads(),
    }


def code() -> dict[str, Any]:
    """The package's version and commit, and whether its files differ from that commit; null outside a checkout."""
    package = Path(dropclass_deploy.__file__).parent
    top = _git(package, "rev-parse", "--show-toplevel")
    # An installed package may lie below somebody else's repository.
    if top is None or Path(top).resolve() != package.parent.resolve():
        return {"version": dropclass_deploy.__version__, "commit": None, "dirty": None}
    changed = _git(package, "status", "--porcelain", "--", ".")
    return {
        "version": dropclass_deploy.__version__,
        "commit": _git(package, "rev-parse", "HEAD"),
        "dirty": None if changed is None else bool(changed),
    }


def versions() -> dict[str, str]:
    """Of what the figures depend on."""
    return {"python": platform.python_version(), **{name: version(name) for name in _LIBRARIES}}


def torch_device(asked: str) -> torch.device:
    """The device that a recipe's ``train.device`` (auto, cpu, cuda, cuda:N) means here."""
    if asked == "auto":
        asked = "cuda" if torch.cuda.is_available() else "cpu"
    return torch.device(asked)


def device_name(asked: str) -> str:
    """The GPU's or the CPU's name."""
    device = torch_device(asked)
    if device.type == "cuda" and torch.cuda.is_available():
        return torch.cuda.get_device_name(device)
    return cpu_model() or platform.machine()


def _git(folder: Path, *arguments: str) -> str | None:
    """What git prints, or None when it cannot tell."""
    try:
        done = subprocess.run(["git", "-C", folder, *arguments], capture_output=True, text=True, check=True)
    except (OSError, subprocess.CalledProcessError):
        return None
    return done.stdout.strip()
