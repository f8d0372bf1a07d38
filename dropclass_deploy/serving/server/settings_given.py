"""Settings from the command line: KEY=VALUE pairs, and a key that does not stand on it."""

from __future__ import annotations

import os
from collections.abc import Mapping, Sequence
from pathlib import Path
from typing import Any

import yaml
from pydantic import ValidationError

from dropclass_deploy.core.errors import UserError
from dropclass_deploy.serving.server.settings import ServerSettings

KEY_VARIABLE = "DROPCLASS_API_KEY"


def settings_from(
    pairs: Sequence[str],
    named: Mapping[str, Any],
    key_file: Path | None = None,
    environment: Mapping[str, str] = os.environ,
) -> ServerSettings:
    """The settings.

    Args:
        pairs: ``key=value``, the value as YAML.
        named: values with options of their own; None leaves the default.
        key_file: holds the API key on its first line; without one the variable DROPCLASS_API_KEY does, if it is there.
        environment: where that is looked up.

    Raises:
        UserError: naming the setting that does not fit.
    """
    given = {key: value for key, value in named.items() if value is not None}
    for pair in pairs:
        key, equals, value = pair.partition("=")
        if not equals:
            raise UserError(f"--set {pair!r}", expected="key=value", remedy="for example --set max_batch=8")
        if key == "api_key":
            raise UserError(
                "--set api_key would show the key to everybody", remedy=f"use --api-key-file or {KEY_VARIABLE}"
            )
        given[key] = _value(pair, value)
    api_key = environment.get(KEY_VARIABLE) if key_file is None else _first_line(key_file)
    if api_key is not None:
        given["api_key"] = _usable(api_key.strip())
    try:
        return ServerSettings.model_validate(given)
    except ValidationError as error:
        first = error.errors(include_input=False)[0]
        where = ".".join(str(part) for part in first["loc"]) or "settings"
        if first["type"] == "extra_forbidden":
            known = ", ".join(name for name in ServerSettings.model_fields if name != "api_key")
            raise UserError(f"there is no setting {where!r}", expected=f"one of {known}") from error
        raise UserError(f"the setting {where}: {first['msg'].removeprefix('Value error, ')}") from error


def described() -> list[tuple[str, str, str]]:
    """(name, default, reason) of every setting, for people."""
    rows = []
    for name, field in ServerSettings.model_fields.items():
        default = field.default
        shown = ",".join(default) if isinstance(default, tuple) else "none" if default is None else str(default)
        rows.append((name, shown, field.description or ""))
    return rows


def _usable(key: str) -> str:
    """Headers carry nothing else whole; a key that can never match would lock everybody out."""
    if not (key.isascii() and key.isprintable()):
        raise UserError("the API key has a sign that a header does not carry", expected="printable ASCII")
    return key


def _value(pair: str, text: str) -> Any:
    try:
        return yaml.safe_load(text)
    except yaml.YAMLError as error:
        raise UserError(f"--set {pair!r} is no YAML", expected="key=value, for example max_batch=8") from error


def _first_line(path: Path) -> str:
    try:
        lines = path.read_text(encoding="utf-8").splitlines()
    except (OSError, UnicodeDecodeError) as error:
        raise UserError(f"{path} cannot be read", expected="a text file with the API key on its first line") from error
    if not lines or not lines[0].strip():
        raise UserError(f"{path} is empty", expected="a text file with the API key on its first line")
    return lines[0].strip()
