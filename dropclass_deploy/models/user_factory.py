"""``python:package.module:factory``: a network that the user's own code builds.

The factory is called as ``factory(num_classes=C, **options)`` and returns an ``nn.Module``. Its module is imported like any
other; where it is not installed, the current folder is searched too, so that ``my_models.py`` beside the recipe works
when the command runs in that folder (else: ``PYTHONPATH=folder``).
"""

from __future__ import annotations

import difflib
import importlib
import inspect
import logging
import sys
from collections.abc import Callable, Iterator, Mapping
from contextlib import contextmanager
from pathlib import Path
from types import ModuleType
from typing import Any

from torch import nn

from dropclass_deploy.core.errors import ModelError, UserError
from dropclass_deploy.models.fitting import Target, load_fitting
from dropclass_deploy.models.weights import Weights

log = logging.getLogger("dropclass_deploy")


def user_model(name: str, num_classes: int, weights: str | None, options: Mapping[str, Any]) -> nn.Module:
    """Build the network of ``name``, "package.module:factory".

    Args:
        name: module and factory.
        num_classes: C, given to the factory.
        weights: None, or a local file with the network's state dict.
        options: given to the factory by keyword.

    Raises:
        ModelError: when the module cannot be imported, or the factory is missing, does not take these arguments, raises,
            or returns something else than an ``nn.Module``; or for weights that do not fit.
    """
    module, _, attribute = name.partition(":")
    if not all(part.isidentifier() for part in [*module.split("."), attribute]):
        raise ModelError(f"there is no model 'python:{name}'", expected="python:package.module:factory")
    with _current_folder_importable():
        factory = _factory(_imported(module), attribute)
        network = _called(factory, f"{module}:{attribute}", num_classes, options)
    if weights is not None:
        load_fitting([Target(network)], Weights().read(weights), weights, num_classes)
    return network


@contextmanager
def _current_folder_importable() -> Iterator[None]:
    """The current folder as the last place of the import path: it hides nothing that is installed."""
    folder = str(Path.cwd())
    added = folder not in sys.path
    if added:
        sys.path.append(folder)
    try:
        yield
    finally:
        if added and folder in sys.path:
            sys.path.remove(folder)


def _imported(module: str) -> ModuleType:
    try:
        return importlib.import_module(module)
    except (Exception, SystemExit) as error:  # the user's code may raise anything while it is imported
        missing = isinstance(error, ModuleNotFoundError) and f"{module}.".startswith(f"{error.name}.")
        if missing:
            raise ModelError(
                f"there is no Python module {module!r}",
                expected=f"an installed one, or {module.replace('.', '/')}.py below {Path.cwd()}",
                remedy="run in the folder that holds it, or set PYTHONPATH",
            ) from error
        raise ModelError(
            f"the Python module {module!r} cannot be imported: {_reason(error)}", remedy="mend the module"
        ) from error


def _factory(module: ModuleType, attribute: str) -> Callable[..., Any]:
    if not hasattr(module, attribute):
        near = difflib.get_close_matches(attribute, [name for name in vars(module) if not name.startswith("_")])
        raise ModelError(
            f"the Python module {module.__name__!r} has no {attribute!r}",
            expected=f"a factory{', such as ' + ', '.join(near) if near else ''}",
        )
    factory = getattr(module, attribute)
    if not callable(factory):
        raise ModelError(
            f"'{module.__name__}:{attribute}' is a {type(factory).__name__}",
            expected="a function or class that is called with num_classes",
        )
    checked: Callable[..., Any] = factory
    return checked


def _called(factory: Callable[..., Any], name: str, num_classes: int, options: Mapping[str, Any]) -> nn.Module:
    arguments = {"num_classes": num_classes, **options}
    try:
        inspect.signature(factory).bind(**arguments)
    except TypeError as error:
        raise ModelError(
            f"the factory {name} does not fit: {error}",
            expected=f"one that is called as factory({', '.join(f'{key}=…' for key in arguments)})",
            remedy="mend it, or model.options",
        ) from error
    except ValueError:
        log.debug("the factory %s is written in C and has no signature to compare", name)
    try:
        network = factory(**arguments)
    except UserError:
        raise
    except (Exception, SystemExit) as error:  # the user's code may raise anything
        raise ModelError(f"the factory {name} raised {_reason(error)}", remedy="mend it, or model.options") from error
    if not isinstance(network, nn.Module):
        raise ModelError(f"the factory {name} returned a {type(network).__name__}", expected="a torch.nn.Module")
    return network


def _reason(error: BaseException) -> str:
    lines = str(error).strip().splitlines()
    return f"{type(error).__name__}: {lines[0][:160]}" if lines else type(error).__name__
