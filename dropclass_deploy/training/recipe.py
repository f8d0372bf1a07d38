"""The recipe: everything that determines a training run, as YAML checked against a schema.

Unknown keys and wrong types are refused with the path to the key. Contradictions are refused here, before any work.
"""

from __future__ import annotations

import difflib
import hashlib
import json
from pathlib import Path
from typing import Annotated, Any, Literal, Self

import yaml
from pydantic import BaseModel, ConfigDict, Field, StrictBool, ValidationError, field_validator, model_validator

from dropclass_deploy.core.errors import RecipeError
from dropclass_deploy.core.preprocess import Preprocess

Fraction = Annotated[float, Field(ge=0, le=1)]
Positive = Annotated[int, Field(ge=1)]
Size = Annotated[tuple[Positive, Positive], Field(description="height, width")]

COMPONENTS = ("median_frequency",)
"""What ``method.with`` may list."""


class Section(BaseModel):
    """A part of the recipe: frozen, nothing unknown, no silent conversion of strings to numbers."""

    model_config = ConfigDict(frozen=True, extra="forbid", strict=False, protected_namespaces=())


class Splits(Section):
    """Names of the splits to train on and to validate on."""

    train: str = "train"
    val: str = "val"


class ModelSection(Section):
    """The network."""

    name: str
    weights: str | None = None
    options: dict[str, Any] = {}
    classifier: str | None = None


class MethodSection(Section):
    """The training method.

    ``ce``: plain cross-entropy. ``ce+block``: the control, cross-entropy with DropClass's extra 1×1 block before the
    classifier, which stays in the deployed model. ``dropclass``: arXiv 2111.00531.
    """

    model_config = ConfigDict(frozen=True, extra="forbid", populate_by_name=True)

    name: Literal["ce", "ce+block", "dropclass"] = "dropclass"
    alpha: Annotated[float, Field(ge=0)] = 10.0
    lambda_max: Fraction = 1.0
    drop_max: Fraction = 1.0
    divisor: Literal["kept", "all"] = "kept"
    drop_divisor: Literal["kept", "all"] = "kept"
    suppress_at: Literal["labels", "classifier"] = "labels"
    detach_importance: StrictBool = False
    drop_among: Literal["all", "batch"] = "all"
    components: tuple[str, ...] = Field(default=("median_frequency",), alias="with")
    options: dict[str, dict[str, Any]] = {}

    @field_validator("components")
    @classmethod
    def _known(cls, value: tuple[str, ...]) -> tuple[str, ...]:
        unknown = [name for name in value if name not in COMPONENTS]
        if unknown:
            raise ValueError(f"{unknown[0]!r} is not available; this version has: {', '.join(COMPONENTS)}")
        if len(set(value)) != len(value):
            raise ValueError("a component is listed twice")
        return value

    @model_validator(mode="after")
    def _options_of_components(self) -> Self:
        for name in self.options:
            raise ValueError(f"method.options.{name}: this component takes no options")
        return self


class Photometric(Section):
    """Largest change of each; 0 leaves it out. Brightness, contrast and saturation are factors 1 ± x, hue a turn ± x."""

    brightness: Fraction = 0.25
    contrast: Fraction = 0.25
    saturation: Fraction = 0.25
    hue: Annotated[float, Field(ge=0, le=0.5)] = 0.02


class TrainSection(Section):
    """The optimisation and the augmentation.

    ``crop`` (height, width) is cut from the image scaled by a factor out of ``scale``; null takes whole images, which
    must then be of one size.
    """

    steps: Positive
    batch_size: Positive = 8
    crop: Size | None = None
    scale: tuple[Annotated[float, Field(gt=0)], Annotated[float, Field(gt=0)]] = (0.75, 1.5)
    flip: Fraction = 0.5
    photometric: Photometric = Photometric()
    seed: Annotated[int, Field(ge=0, lt=2**31)] = 0
    device: str = "auto"
    precision: Literal["fp32", "bf16", "fp16"] = "fp32"
    optimizer: Literal["adamw", "adam", "sgd"] = "adamw"
    lr: Annotated[float, Field(gt=0)] = 1e-3
    weight_decay: Annotated[float, Field(ge=0)] = 1e-4
    momentum: Annotated[float, Field(ge=0, lt=1)] = 0.9
    schedule: Literal["poly", "constant"] = "poly"
    power: Annotated[float, Field(gt=0)] = 0.9
    warmup_steps: Annotated[int, Field(ge=0)] = 0
    workers: Annotated[int, Field(ge=0)] = 0
    log_every: Positive = 10
    validate_every: Annotated[int, Field(ge=0)] = 0
    checkpoint_every: Annotated[int, Field(ge=0)] = 0

    @model_validator(mode="after")
    def _consistent(self) -> Self:
        if self.scale[0] > self.scale[1]:
            raise ValueError(f"scale is {list(self.scale)}: the smaller factor comes first")
        if self.warmup_steps >= self.steps:
            raise ValueError(f"warmup_steps {self.warmup_steps} is not below steps {self.steps}")
        if self.device not in ("auto", "cpu", "cuda") and not self.device.startswith("cuda:"):
            raise ValueError(f"device is {self.device!r}: auto, cpu, cuda or cuda:N")
        return self


class ExportSection(Section):
    """What is deployed."""

    deploy_head: Literal["plain", "folded"] = "plain"


class Recipe(Section):
    """A whole recipe."""

    data: str
    splits: Splits = Splits()
    model: ModelSection
    preprocess: Preprocess | None = None
    method: MethodSection = MethodSection()
    train: TrainSection
    export: ExportSection = ExportSection()

    @model_validator(mode="after")
    def _consistent(self) -> Self:
        if self.export.deploy_head == "folded" and self.method.name != "dropclass":
            raise ValueError(f"export.deploy_head: method {self.method.name!r} has no folded head; use plain")
        return self

    def to_yaml(self) -> str:
        """The recipe with every default written out."""
        content = self.model_dump(mode="json", by_alias=True)
        return yaml.safe_dump(content, sort_keys=False, allow_unicode=True)

    def digest(self) -> str:
        """SHA-256 of what determines the result: equal digests, equal runs (devices and logging aside)."""
        content = self.model_dump(mode="json", by_alias=True)
        for key in ("device", "workers", "log_every", "checkpoint_every"):
            del content["train"][key]
        return hashlib.sha256(json.dumps(content, sort_keys=True).encode()).hexdigest()


def load_recipe(source: Path | str, overrides: list[str] | None = None) -> Recipe:
    """Read a recipe file and apply ``key.sub=value`` overrides (values are YAML).

    Raises:
        RecipeError: for a missing or broken file, an unknown key, a wrong type or a contradiction.
    """
    path = Path(source)
    try:
        content = yaml.safe_load(path.read_text(encoding="utf-8"))
    except FileNotFoundError as error:
        raise RecipeError(f"there is no recipe {path}", remedy=_hint(path)) from error
    except (OSError, UnicodeDecodeError) as error:
        raise RecipeError(f"{path} cannot be read: {error}", expected="a YAML file") from error
    except yaml.YAMLError as error:
        reason = " ".join(str(error).split())
        raise RecipeError(f"{path} is not YAML: {reason}") from error
    if not isinstance(content, dict):
        raise RecipeError(
            f"{path} holds {type(content).__name__}", expected="a mapping with data, model, method and train"
        )
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
        return (
            f"unknown key {path}{guess} expected one of {', '.join(known)}"
            if not near
            else f"unknown key {path}{guess}"
        )
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
    *parents, last = key.strip().split(".")
    for part in parents:
        inner = target.setdefault(part, {})
        if not isinstance(inner, dict):
            raise RecipeError(f"--set {key}: {part} holds {inner!r}", expected="a key inside a section")
        target = inner
    target[last] = value


def _hint(path: Path) -> str:
    names = sorted(file.name for file in path.parent.glob("*.yaml")) if path.parent.is_dir() else []
    return f"{path.parent} has {', '.join(names)}" if names else "check the path"
