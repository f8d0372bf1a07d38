"""What ``evidence.yaml`` may hold, as pydantic models."""

from __future__ import annotations

from typing import Annotated, Any, Self

from pydantic import BaseModel, ConfigDict, Field, model_validator

ALL = "all"
"""Name of the only part of a grid that does not choose and confirm."""

Overrides = dict[str, Any]
"""Recipe key, such as ``train.steps``, to value."""
Seed = Annotated[int, Field(ge=0, strict=True)]


class _Section(BaseModel):
    model_config = ConfigDict(frozen=True, extra="forbid")


class Evaluated(_Section):
    """A split that both deploy heads are evaluated on."""

    split: str


class Part(_Section):
    """Settings × seeds that make one table."""

    settings: tuple[str, ...] = Field(min_length=1)
    seeds: tuple[Seed, ...] = Field(min_length=1)

    @model_validator(mode="after")
    def _once(self) -> Self:
        _refuse_twice(self.settings, self.seeds)
        return self


class GridSection(_Section):
    """A grid as YAML has it: ``settings`` and ``seeds``, or ``choose`` and ``confirm``."""

    recipe: str
    data: str | None = None
    reduced: str | None = None
    set: Overrides = {}
    evaluate: tuple[Evaluated, ...] = Field(default=(Evaluated(split="val"),), min_length=1)
    watch: str | None = None
    baselines: tuple[str, ...] | None = Field(default=None, min_length=1)
    headline: tuple[str, ...] | None = Field(default=None, min_length=3, max_length=6)
    settings: tuple[str, ...] | None = Field(default=None, min_length=1)
    seeds: tuple[Seed, ...] | None = Field(default=None, min_length=1)
    choose: Part | None = None
    confirm: Part | None = None

    @model_validator(mode="after")
    def _parted(self) -> Self:
        whole, parted = (self.settings, self.seeds), (self.choose, self.confirm)
        one_part = None not in whole and parted == (None, None)
        two_parts = None not in parted and whole == (None, None)
        if not (one_part or two_parts):
            raise ValueError("expected settings and seeds, or choose and confirm")
        _refuse_twice(self.settings or (), self.seeds or ())
        if self.choose is not None and self.confirm is not None:
            common = sorted({*self.choose.seeds} & {*self.confirm.seeds})
            if common:
                raise ValueError(f"choose and confirm share the seeds {common}; confirm on seeds that chose nothing")
        return self

    def parts(self) -> dict[str, Part]:
        """By name, in the order in which they are run."""
        if self.choose is not None and self.confirm is not None:
            return {"choose": self.choose, "confirm": self.confirm}
        return {ALL: Part(settings=self.settings or (), seeds=self.seeds or ())}


class PlanFile(_Section):
    """The whole file: settings by name, grids by name.

    ``retired`` has the settings whose options went again because they did not pay, and the commit that has them; ``about``
    what a setting is, and its source, for tables of methods.
    """

    settings: dict[str, Overrides] = Field(min_length=1)
    retired: dict[str, Annotated[str, Field(pattern="^[0-9a-f]{7,40}$")]] = {}
    about: dict[str, str] = {}
    grids: dict[str, GridSection] = Field(min_length=1)


def _refuse_twice(settings: tuple[str, ...], seeds: tuple[int, ...]) -> None:
    for what, values in (("settings", settings), ("seeds", seeds)):
        if len(set(values)) != len(values):
            raise ValueError(f"one of the {what} {list(values)} is listed twice")
