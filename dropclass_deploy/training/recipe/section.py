"""The base of every section of a recipe, and the types of its values."""

from __future__ import annotations

import re
from typing import Annotated, Any

from pydantic import BaseModel, BeforeValidator, ConfigDict, Field


def _number(value: Any) -> Any:
    """YAML reads ``1e-3`` (no dot) as text: such a text is a number; other texts are left for the schema to refuse."""
    return float(value) if isinstance(value, str) and _EXPONENT.fullmatch(value) else value


_EXPONENT = re.compile(r"[+-]?\d+(\.\d*)?[eE][+-]?\d+")
# Strict: true is not 1, "200" is not 200, and infinity is no number here.
Float = Annotated[float, BeforeValidator(_number), Field(strict=True, allow_inf_nan=False)]
Fraction = Annotated[Float, Field(ge=0, le=1)]
Positive = Annotated[int, Field(ge=1, le=10**9, strict=True)]
BatchSize = Annotated[int, Field(ge=1, le=65_536, strict=True)]
Count = Annotated[int, Field(ge=0, le=2**31 - 1, strict=True)]
Scale = Annotated[Float, Field(gt=0, le=100)]
Size = Annotated[tuple[Positive, Positive], Field(description="height, width")]


class Section(BaseModel):
    """A part of the recipe: frozen, nothing unknown, no silent conversion of strings to numbers."""

    model_config = ConfigDict(frozen=True, extra="forbid", strict=False, protected_namespaces=())
