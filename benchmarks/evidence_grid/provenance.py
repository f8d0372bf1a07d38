"""What a stored figure came from: code, versions, device."""

from __future__ import annotations

import platform
from importlib.metadata import version
from typing import Any

import torch
from code_version import code

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
