"""Reading a small YAML file that a person wrote: one clear line for whatever is wrong with it."""

from __future__ import annotations

from collections.abc import Hashable, Mapping
from pathlib import Path
from reprlib import repr as short
from typing import Any

import yaml

from dropclass_deploy.core.errors import DataError

_MAX_BYTES = 1 << 20


class _StrictLoader(yaml.SafeLoader):
    """A safe loader that refuses a key written twice, where YAML would silently take the last."""

    def construct_mapping(self, node: yaml.MappingNode, deep: bool = False) -> dict[Hashable, Any]:
        mapping = super().construct_mapping(node, deep=deep)
        if len(mapping) != len(node.value):
            keys = [self.construct_object(key, deep=True) for key, _ in node.value]
            twice = next((key for place, key in enumerate(keys) if key in keys[:place]), "?")
            raise yaml.constructor.ConstructorError(None, None, f"the key {twice!r} stands twice", node.start_mark)
        return mapping


def read_yaml_mapping(path: Path) -> dict[Any, Any]:
    """The mapping that a YAML file holds.

    Raises:
        DataError: when the file is missing, larger than 1 MiB, no UTF-8, no YAML or no mapping.
    """
    try:
        content = _load(_text(path))
    except OSError as error:
        raise DataError(f"{path} cannot be read ({error.strerror})", expected="a YAML file") from error
    except (yaml.YAMLError, ValueError, RecursionError) as error:
        raise DataError(f"{path} is not valid YAML ({_reason(error)})", remedy="correct the file") from error
    if not isinstance(content, dict):
        raise DataError(f"{path} holds {type(content).__name__}", expected="keys with values, such as 'classes:'")
    return content


def canonical_keys(content: Mapping[Any, Any], spellings: Mapping[str, str], where: str) -> dict[str, Any]:
    """``content`` under one spelling of each key; an unknown key or two spellings of one are a DataError."""
    table: dict[str, Any] = {}
    for key, value in content.items():
        name = spellings.get(key) if isinstance(key, str) else None
        if name is None:
            raise DataError(f"unknown key {short(key)} in {where}", expected="one of " + ", ".join(spellings))
        if name in table:
            raise DataError(f"{key!r} and another spelling of it stand in {where}", expected="one of them")
        table[name] = value
    return table


def integer_of(value: Any, what: str) -> int:
    """``value`` when it is a whole number, else a DataError about ``what``."""
    # A YAML true is an int to Python.
    if type(value) is not int:
        raise DataError(f"{what} is {short(value)}", expected="a whole number")
    return value


def list_of(value: Any, what: str) -> list[Any]:
    """``value`` when it is a list, else a DataError about ``what``."""
    if not isinstance(value, list):
        raise DataError(f"{what} is {short(value)}", expected="a list, one entry a class")
    return value


def text_of(value: Any, what: str) -> str:
    """``value`` when it is text that is not blank, else a DataError about ``what``."""
    if not isinstance(value, str) or not value.strip() or "\0" in value:
        raise DataError(
            f"{what} is {short(value)}", expected="text; put it in quotes when YAML takes it for something else"
        )
    return value


def _text(path: Path) -> str:
    if path.stat().st_size > _MAX_BYTES:
        raise DataError(f"{path} is {path.stat().st_size} bytes long", expected="a class table of at most 1 MiB")
    return path.read_text(encoding="utf-8")


def _load(text: str) -> Any:
    return yaml.load(text, Loader=_StrictLoader)


def _reason(error: Exception) -> str:
    if isinstance(error, RecursionError):
        return "nested too deeply"
    mark = getattr(error, "problem_mark", None)
    problem = getattr(error, "problem", None) or str(error).splitlines()[0]
    return f"{problem}, line {mark.line + 1}" if mark else str(problem)
