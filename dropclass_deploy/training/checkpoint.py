"""The state from which an interrupted run goes on: written whole or not at all."""

from __future__ import annotations

import pickle
from dataclasses import dataclass
from pathlib import Path
from typing import Any

import torch
from torch import nn

from dropclass_deploy.core.errors import RunError
from dropclass_deploy.core.files import atomic_folder
from dropclass_deploy.training.run import CHECKPOINT

_FILE = "state.pt"


@dataclass(frozen=True)
class Checkpoint:
    """What is needed beside the recipe.

    Attributes:
        step: steps done.
        recipe_digest: of the recipe that runs.
        module: state dict of the method's module (network and branch).
        optimiser: its state dict.
        scaler: gradient scaler's state, or None.
        rng: the CPU generator's state (dropout inside the network draws from it; all else is keyed by step).
        cuda_rng: the current GPU's generator's state, or None.
    """

    step: int
    recipe_digest: str
    module: dict[str, Any]
    optimiser: dict[str, Any]
    scaler: dict[str, Any] | None
    rng: torch.Tensor
    cuda_rng: torch.Tensor | None = None


def cuda_rng_state() -> torch.Tensor | None:
    """State of the current GPU's generator, or None without one."""
    return torch.cuda.get_rng_state() if torch.cuda.is_available() else None


def save_checkpoint(run: Path, checkpoint: Checkpoint) -> None:
    """Replace ``run/checkpoint``; a failure leaves the one before."""
    with atomic_folder(run / CHECKPOINT, overwrite=True) as folder:
        torch.save(vars(checkpoint), folder / _FILE)


def load_checkpoint(run: Path) -> Checkpoint | None:
    """The checkpoint of a run, or None when it has none yet.

    Raises:
        RunError: when the file cannot be read.
    """
    path = run / CHECKPOINT / _FILE
    if not path.is_file():
        return None
    try:
        return Checkpoint(**torch.load(path, map_location="cpu", weights_only=True))
    except (pickle.UnpicklingError, RuntimeError, EOFError, TypeError, OSError) as error:
        reason = (str(error).splitlines() or [type(error).__name__])[0]
        raise RunError(f"{path} cannot be read: {reason}", remedy="start again with --overwrite") from error


def restore(checkpoint: Checkpoint, module: nn.Module, optimiser: torch.optim.Optimizer, scaler: Any) -> None:
    """Put a checkpoint's state back.

    Raises:
        RunError: when it belongs to another network.
    """
    try:
        module.load_state_dict(checkpoint.module)
        optimiser.load_state_dict(checkpoint.optimiser)
    except (RuntimeError, ValueError, KeyError) as error:
        reason = " ".join(str(error).split())[:200]
        raise RunError(
            f"the checkpoint belongs to another network: {reason}", remedy="resume with the same model"
        ) from error
    if scaler is not None and checkpoint.scaler is not None:
        scaler.load_state_dict(checkpoint.scaler)
    torch.set_rng_state(checkpoint.rng)
    if checkpoint.cuda_rng is not None and torch.cuda.is_available():
        torch.cuda.set_rng_state(checkpoint.cuda_rng)
