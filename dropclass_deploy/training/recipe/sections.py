"""The recipe: everything that determines a training run, as YAML checked against a schema.

Unknown keys and wrong types are refused with the path to the key. Contradictions are refused here, before any work.
"""

from __future__ import annotations

import hashlib
import json
import re
from typing import Annotated, Any, Literal, Self

import yaml
from pydantic import ConfigDict, Field, StrictBool, ValidationInfo, field_validator, model_validator

from dropclass_deploy.core.preprocess import Preprocess, Triple
from dropclass_deploy.training.recipe.components import (
    ON_PIXELS,
    ComponentOptions,
    first_unknown,
    options_of,
)
from dropclass_deploy.training.recipe.loss_options import IGNORE
from dropclass_deploy.training.recipe.sampling_options import DEFAULT_CROPS
from dropclass_deploy.training.recipe.section import BatchSize, Count, Float, Fraction, Positive, Scale, Section, Size

DEFAULT_SCALE = (0.75, 1.5)
DEFAULT_POWER = 0.9
DEFAULT_STEP_AT = (0.5, 0.75)
DEFAULT_STEP_GAMMA = 0.1
Milestone = Annotated[Float, Field(gt=0, lt=1)]

_NO_SAY = (
    "device",
    "workers",
    "augment_on",
    "compile",
    "log_every",
    "checkpoint_every",
    "keep_last",
    "trackers",
    "sync_batchnorm",
)
"""Keys of ``train`` that may change between the parts of a run: no number of one process depends on them, but for the
rounding of another device or compiler. ``channels_last`` is not among them: it moves the last bits everywhere."""


class Splits(Section):
    """Names of the splits to train on and to validate on."""

    train: str = "train"
    val: str = "val"


class PreprocessSection(Section):
    """What differs from the network's own preprocessing; null keeps it."""

    mean: Triple | None = None
    std: Triple | None = None
    size: Size | None = None

    def resolve(self, default: Preprocess) -> Preprocess:
        """The whole specification."""
        given = {key: value for key, value in vars(self).items() if value is not None}
        return Preprocess.model_validate({**default.model_dump(), **given})

    @model_validator(mode="after")
    def _consistent(self) -> Self:
        if self.std is not None and min(self.std) <= 0:
            raise ValueError("std must be above 0")
        return self


class ModelSection(Section):
    """The network; left out only for one given to ``train`` as a Python object."""

    name: str
    weights: str | None = None
    options: dict[str, Any] = Field(default_factory=dict)
    classifier: str | None = None

    @field_validator("options", mode="before")
    @classmethod
    def _none(cls, value: Any) -> Any:
        return {} if value is None else value


class MethodSection(Section):
    """The training method.

    ``ce``: plain cross-entropy. ``ce+block``: the control, cross-entropy with DropClass's extra 1×1 block before the
    classifier, which stays in the deployed model. ``dropclass``: arXiv 2111.00531.
    """

    model_config = ConfigDict(frozen=True, extra="forbid", populate_by_name=True)

    name: Literal["ce", "ce+block", "dropclass"] = "dropclass"
    alpha: Annotated[Float, Field(ge=0)] = 10.0
    lambda_max: Fraction = 1.0
    drop_max: Fraction = 1.0
    divisor: Literal["kept", "all"] = "kept"
    drop_divisor: Literal["kept", "all"] = "kept"
    suppress_at: Literal["labels", "classifier", "elsewhere"] = "labels"
    plain_weight: Literal["rest", "full"] = "rest"
    detach_importance: StrictBool = False
    drop_among: Literal["all", "batch"] = "all"
    components: tuple[str, ...] = Field(default=("median_frequency",), alias="with")
    options: ComponentOptions = Field(default=ComponentOptions(), validate_default=True)

    @field_validator("components")
    @classmethod
    def _known(cls, value: tuple[str, ...]) -> tuple[str, ...]:
        if problem := first_unknown(value):
            raise ValueError(problem)
        return value

    @field_validator("options", mode="before")
    @classmethod
    def _filled(cls, value: Any, info: ValidationInfo) -> Any:
        return options_of(info.data.get("components", ()), value)

    @model_validator(mode="after")
    def _consistent(self) -> Self:
        if self.name != "dropclass":
            return self
        if "ignore_label" in self.components:
            raise ValueError(
                "ignore_label is in with, and name is dropclass, whose dropped loss ignores the class's labels already: "
                "take one of them (name: ce for the control)"
            )
        changed = [name for name in self.components if name in ON_PIXELS]
        if self.options.uncertainty is not None and self.options.uncertainty.background == IGNORE:
            changed.append("uncertainty")
        if changed and self.drop_divisor == "all":
            raise ValueError(
                f"drop_divisor is all, and {changed[0]} divides by the weights of its pixels: use drop_divisor: kept"
            )
        return self


class Photometric(Section):
    """Largest change of each; 0 leaves it out. Brightness, contrast and saturation are factors 1 ± x, hue a turn ± x."""

    brightness: Fraction = 0.25
    contrast: Fraction = 0.25
    saturation: Fraction = 0.25
    hue: Annotated[Float, Field(ge=0, le=0.5)] = 0.02


class TrainSection(Section):
    """The optimisation and the augmentation.

    ``crop`` (height, width) is cut from the image scaled by a factor out of ``scale``; null takes whole images, which
    must then be of one size, and ``scale`` has no say. ``batch_size`` is the images of one step, however many processes
    share them and in however many parts each takes its own (``accumulate``). ``clip_norm`` and ``ema`` 0 leave gradients
    and weights as they are. ``validate_every`` and ``checkpoint_every`` 0 mean a tenth of the run.

    ``schedule`` "poly" lets the learning rate fall to 0 by ``power``, "step" multiplies it by ``step_gamma`` at each share
    of the run in ``step_at``, "constant" keeps it.

    ``channels_last`` is the memory layout of weights and inputs while training. ``compile`` runs the network's training
    passes through ``torch.compile`` (on a CPU it needs a C++ compiler); what is saved and evaluated is the network itself.
    ``workers`` are processes that read and augment ahead; null chooses (``batches.workers``), 0 reads between the steps.
    ``augment_on`` says where colours are changed: in the workers ("cpu"), on the network's device, or where it pays
    (``batches.photometry``).
    """

    steps: Positive
    batch_size: BatchSize = 8
    accumulate: Positive = 1
    crop: Size | None = None
    scale: tuple[Scale, Scale] = DEFAULT_SCALE
    flip: Fraction = 0.5
    photometric: Photometric = Photometric()
    seed: Count = 0
    device: str = "auto"
    precision: Literal["fp32", "bf16", "fp16"] = "fp32"
    optimizer: Literal["adamw", "adam", "sgd"] = "adamw"
    lr: Annotated[Float, Field(gt=0)] = 1e-3
    weight_decay: Annotated[Float, Field(ge=0)] = 1e-4
    momentum: Annotated[Float, Field(ge=0, lt=1)] = 0.9
    schedule: Literal["poly", "step", "constant"] = "poly"
    power: Annotated[Float, Field(gt=0)] = DEFAULT_POWER
    step_at: Annotated[tuple[Milestone, ...], Field(min_length=1)] = DEFAULT_STEP_AT
    step_gamma: Annotated[Float, Field(gt=0, le=1)] = DEFAULT_STEP_GAMMA
    warmup_steps: Count = 0
    clip_norm: Annotated[Float, Field(ge=0)] = 0.0
    ema: Annotated[Float, Field(ge=0, lt=1)] = 0.0
    sync_batchnorm: StrictBool = True
    channels_last: StrictBool = True
    compile: StrictBool = False
    workers: Count | None = None
    augment_on: Literal["auto", "cpu", "device"] = "auto"
    log_every: Positive = 10
    validate_every: Count = 0
    checkpoint_every: Count = 0
    keep_last: Positive = 2
    trackers: tuple[str, ...] = ()

    @model_validator(mode="after")
    def _consistent(self) -> Self:
        if self.scale[0] > self.scale[1]:
            raise ValueError(f"scale is {list(self.scale)}: the smaller factor comes first")
        if self.batch_size % self.accumulate:
            raise ValueError(
                f"batch_size {self.batch_size} cannot be cut into accumulate {self.accumulate} equal parts"
            )
        if self.warmup_steps >= self.steps:
            raise ValueError(f"warmup_steps {self.warmup_steps} is not below steps {self.steps}")
        if list(self.step_at) != sorted(set(self.step_at)):
            raise ValueError(
                f"step_at is {list(self.step_at)}: each share of the run must be larger than the one before"
            )
        if self.schedule != "poly" and self.power != DEFAULT_POWER:
            raise ValueError(f"power is given, and schedule is {self.schedule}: it is poly's alone; leave it out")
        for key, default in (("step_at", DEFAULT_STEP_AT), ("step_gamma", DEFAULT_STEP_GAMMA)):
            if self.schedule != "step" and getattr(self, key) != default:
                raise ValueError(f"{key} is given with schedule {self.schedule}: it has a say in schedule step only")
        if self.crop is None and self.scale != DEFAULT_SCALE:
            raise ValueError(
                "scale is given without crop: whole images are not scaled; give train.crop: [height, width]"
            )
        if re.fullmatch(r"auto|cpu|cuda(:\d+)?", self.device) is None:
            raise ValueError(f"device is {self.device!r}: auto, cpu, cuda or cuda:N")
        return self


class ExportSection(Section):
    """What is deployed."""

    deploy_head: Literal["plain", "folded"] = "plain"


class Recipe(Section):
    """A whole recipe; a section that YAML leaves empty has its defaults."""

    data: str
    splits: Splits = Splits()
    model: ModelSection | None = None
    preprocess: PreprocessSection = PreprocessSection()
    method: MethodSection = MethodSection()
    train: TrainSection
    export: ExportSection = ExportSection()

    @model_validator(mode="before")
    @classmethod
    def _empty_sections(cls, content: Any) -> Any:
        if not isinstance(content, dict):
            return content
        return {key: value for key, value in content.items() if value is not None or key not in cls.model_fields}

    @model_validator(mode="after")
    def _consistent(self) -> Self:
        if self.export.deploy_head == "folded" and self.method.name != "dropclass":
            raise ValueError(f"export.deploy_head: method {self.method.name!r} has no folded head; use plain")
        sampling, cuts = self.method.options.rare_class_sampling, self.method.options.curriculum is not None
        if sampling is not None and sampling.crops != DEFAULT_CROPS and not cuts and self.train.crop is None:
            raise ValueError(
                f"method.options.rare_class_sampling.crops is {sampling.crops}, and nothing is cropped: give train.crop: "
                "[height, width]"
            )
        return self

    def to_yaml(self) -> str:
        """The recipe with every default written out."""
        content = self.model_dump(mode="json", by_alias=True)
        return yaml.safe_dump(content, sort_keys=False, allow_unicode=True)

    def determining(self, *, chosen_only: bool = False) -> dict[str, Any]:
        """What determines the result, devices and logging left out; with ``chosen_only`` what differs from the defaults."""
        content = self.model_dump(mode="json", by_alias=True, exclude_defaults=chosen_only)
        for key in _NO_SAY:
            content["train"].pop(key, None)
        return content

    def digest(self) -> str:
        """SHA-256 of what determines the result: equal digests, equal runs."""
        return hashlib.sha256(json.dumps(self.determining(), sort_keys=True).encode()).hexdigest()
