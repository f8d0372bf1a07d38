"""Reading a recipe: YAML, overrides, and messages that lead to the key."""

from __future__ import annotations

import difflib
from pathlib import Path
from typing import Any

import yaml
from pydantic import BaseModel, ValidationError

from dropclass_deploy.core.errors import RecipeError
from dropclass_deploy.training.recipe.layers import leave_out_options, read_layers
from dropclass_deploy.training.recipe.sections import Recipe


def load_recipe(source: Path | str, overrides: list[str] | None = None) -> Recipe:
    """Read a recipe and apply ``key.sub=value`` overrides (values are YAML).

    Args:
        source: a YAML file, which may build on another (``base:``); or the folder of a run, which holds its recipe.
        overrides: in the order in which they apply.

    Raises:
        RecipeError: for a missing or broken file, an unknown key, a wrong type or a contradiction.
    """
    path = Path(source)
    if path.is_dir():
        path = path / "recipe.yaml"
    content = read_layers(path)
    for override in overrides or []:
        _apply(content, override)
    return parse_recipe(content, str(path))


def parse_recipe(content: dict[str, Any], where: str = "the recipe") -> Recipe:
    """Check a recipe's content against the schema.

    Raises:
        RecipeError: naming the first key that does not fit, by its path.
    """
    try:
        return Recipe.model_validate(content)
    except ValidationError as error:
        first = error.errors()[0]
        more = f" (and {error.error_count() - 1} more)" if error.error_count() > 1 else ""
        raise RecipeError(f"{where}: {_explain(first)}{more}") from error


def _explain(problem: Any) -> str:
    path = ".".join(str(part) for part in problem["loc"])
    if problem["type"] == "extra_forbidden":
        section = _section_at(problem["loc"][:-1])
        known = _keys(section)
        near = difflib.get_close_matches(str(problem["loc"][-1]), known, n=1)
        guess = f"; did you mean {near[0]!r}?" if near else ""
        return f"unknown key {path}" + (guess or f"; expected one of {', '.join(known)}")
    if problem["type"] == "missing":
        return f"the key {path} is missing"
    message = str(problem["msg"]).removeprefix("Value error, ")
    value = problem.get("input")
    shown = f" (found {value!r})" if isinstance(value, str | int | float | bool | list) else ""
    return f"{path}: {message}{shown}" if path else message


def _section_at(loc: tuple[Any, ...]) -> type[BaseModel]:
    section: type[BaseModel] = Recipe
    for part in loc:
        field = next((f for name, f in section.model_fields.items() if part in (name, f.alias)), None)
        inner = (
            [a for a in _options(field.annotation) if isinstance(a, type) and issubclass(a, BaseModel)] if field else []
        )
        if not inner:
            break
        section = inner[0]
    return section


def _options(annotation: Any) -> tuple[Any, ...]:
    return (annotation, *getattr(annotation, "__args__", ()))


def _keys(section: type[BaseModel]) -> list[str]:
    return [field.alias or name for name, field in section.model_fields.items()]


def _apply(content: dict[str, Any], override: str) -> None:
    key, equals, text = override.partition("=")
    if not equals or not key.strip():
        raise RecipeError(f"--set {override!r}", expected="key.sub=value", remedy="for example --set train.steps=200")
    try:
        value = yaml.safe_load(text)
    except yaml.YAMLError as error:
        raise RecipeError(f"--set {override!r}: the value is not YAML") from error
    target = content
    *parents, last = (part.strip() for part in key.split("."))
    if not all((*parents, last)):
        raise RecipeError(f"--set {key}: a part of the key is empty", expected="key.sub=value")
    for part in parents:
        if target.get(part) is None:
            target[part] = {}
        inner = target[part]
        if not isinstance(inner, dict):
            raise RecipeError(f"--set {key}: {part} holds {inner!r}", expected="a key inside a section")
        target = inner
    target[last] = value
    if key.strip() == "method.with":
        leave_out_options(target, value)
