"""A recipe's file and those that it builds on: ``base: OTHER.yaml`` takes what that one says where this one says nothing."""

from __future__ import annotations

from pathlib import Path
from typing import Any

import yaml

from dropclass_deploy.core.errors import RecipeError

BASE = "base"
_MOST = 8
"""Files on top of each other: more is a mistake, or nobody can follow it."""


def read_layers(path: Path) -> dict[str, Any]:
    """The content of a recipe's file, over that of its bases, whose paths are relative to the file that names them.

    Sections are merged key by key; any other value, a list as well, takes the place of the one below. A recipe that
    names another network takes over nothing of the one below.

    Raises:
        RecipeError: for a file that is missing or broken, or builds on itself.
    """
    chain = [path]
    content = layers = _read(path)
    while BASE in content:
        below = _base_of(content, chain)
        chain.append(below)
        content = _read(below)
        layers = merged(content, layers)
    layers.pop(BASE, None)
    return layers


def merged(below: dict[str, Any], above: dict[str, Any]) -> dict[str, Any]:
    """``above`` over ``below``; what stands below of another network than the one above goes with it."""
    result = dict(below)
    network = above.get("model")
    if isinstance(network, dict) and network.get("name") not in (None, _name_of(below.get("model"))):
        result.pop("model", None)
    for key, value in above.items():
        under = result.get(key)
        result[key] = merged(under, value) if isinstance(under, dict) and isinstance(value, dict) else value
    method = above.get("method")
    if isinstance(method, dict) and "with" in method and isinstance(below.get("method"), dict):
        leave_out_options(result["method"], method["with"], keep=method.get("options"))
    return result


def leave_out_options(method: dict[str, Any], components: Any, keep: Any = None) -> None:
    """Options of components that are listed no longer go with them; those of ``keep`` were meant, and are checked."""
    options = method.get("options")
    if isinstance(options, dict) and isinstance(components, list):
        meant = keep if isinstance(keep, dict) else {}
        method["options"] = {name: value for name, value in options.items() if name in components or name in meant}


def _name_of(model: Any) -> Any:
    return model.get("name") if isinstance(model, dict) else None


def _base_of(content: dict[str, Any], chain: list[Path]) -> Path:
    name, path = content[BASE], chain[-1]
    if not isinstance(name, str) or not name or "\0" in name:
        raise RecipeError(f"{path}: {BASE} is {name!r}", expected="the path of a recipe, relative to this one")
    below = path.parent / name
    if any(below.resolve() == known.resolve() for known in chain):
        raise RecipeError(f"{path}: {BASE} leads back to {below}", expected="recipes that do not build on themselves")
    if len(chain) == _MOST:
        raise RecipeError(f"{chain[0]} builds on more than {_MOST - 1} other recipes", remedy="write it as one file")
    return below


def _read(path: Path) -> dict[str, Any]:
    try:
        content = yaml.safe_load(path.read_text(encoding="utf-8"))
    except FileNotFoundError as error:
        raise RecipeError(f"there is no recipe {path}", remedy=_hint(path)) from error
    except (OSError, ValueError) as error:  # text that is not UTF-8, or a path with a null character
        raise RecipeError(f"{path} cannot be read: {error}", expected="a YAML file") from error
    except (yaml.YAMLError, RecursionError) as error:
        reason = " ".join(str(error).split())
        raise RecipeError(f"{path} is not YAML: {reason}") from error
    if not isinstance(content, dict):
        raise RecipeError(
            f"{path} holds {type(content).__name__}", expected="a mapping with data, model, method and train"
        )
    return content


def _hint(path: Path) -> str:
    names = sorted(file.name for file in path.parent.glob("*.yaml")) if path.parent.is_dir() else []
    return f"{path.parent} has {', '.join(names)}" if names else "check the path"
