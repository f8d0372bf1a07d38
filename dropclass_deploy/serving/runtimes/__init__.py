"""Runtimes: one small class each, behind one Protocol, opened by name."""

from dropclass_deploy.serving.runtimes.base import Runtime, TensorSpec
from dropclass_deploy.serving.runtimes.registry import open_runtime, runtime_names

__all__ = ["Runtime", "TensorSpec", "open_runtime", "runtime_names"]
