"""What ``method.with`` may list, and the options of each."""

from __future__ import annotations

from typing import Any, Self

from pydantic import model_validator

from dropclass_deploy.training.recipe.loss_options import (
    IGNORE,
    BlvOptions,
    BoundaryOptions,
    DiceOptions,
    FocalOptions,
    IgnoreLabelOptions,
    LogitAdjustmentOptions,
    LovaszOptions,
    OhemOptions,
    TemplateOptions,
    UncertaintyOptions,
)
from dropclass_deploy.training.recipe.sampling_options import (
    CurriculumOptions,
    EnetWeightsOptions,
    RareClassSamplingOptions,
    ResampleOptions,
)
from dropclass_deploy.training.recipe.section import Fraction, Section


class MedianFrequencyOptions(Section):
    """Class weights (median frequency ÷ frequency) ** ``power``.

    1 is median frequency balancing; 0 leaves every class its share of the pixels. In between, rare classes have fewer false
    alarms, and with them a higher IoU, and lower recall.
    """

    power: Fraction = 1.0


class ClassMixOptions(Section):
    """Classes leave a training image and another image shows in their place, see ``training.batches.class_mix``.

    ``images`` is the share of images that are mixed, ``classes`` the probability that a class of such an image leaves.
    """

    images: Fraction = 0.5
    classes: Fraction = 0.5


_EXCLUSIVE = (
    ("median_frequency", "enet_weights", "both set the class weights"),
    ("rare_class_sampling", "resample", "both choose the images"),
    ("ohem", "focal", "both choose the pixels that matter"),
)


class ComponentOptions(Section):
    """``method.options``: a section for every component listed, null for the others."""

    median_frequency: MedianFrequencyOptions | None = None
    class_mix: ClassMixOptions | None = None
    ohem: OhemOptions | None = None
    focal: FocalOptions | None = None
    dice: DiceOptions | None = None
    lovasz: LovaszOptions | None = None
    logit_adjustment: LogitAdjustmentOptions | None = None
    blv: BlvOptions | None = None
    boundary: BoundaryOptions | None = None
    uncertainty: UncertaintyOptions | None = None
    template: TemplateOptions | None = None
    ignore_label: IgnoreLabelOptions | None = None
    enet_weights: EnetWeightsOptions | None = None
    rare_class_sampling: RareClassSamplingOptions | None = None
    resample: ResampleOptions | None = None
    curriculum: CurriculumOptions | None = None

    @model_validator(mode="after")
    def _compatible(self) -> Self:
        for one, other, why in _EXCLUSIVE:
            if getattr(self, one) is not None and getattr(self, other) is not None:
                raise ValueError(f"method.with lists {one} and {other}: {why}; leave one of them out")
        uncertain = self.uncertainty
        if self.ignore_label is not None and uncertain is not None and uncertain.background == IGNORE:
            raise ValueError(
                "method.with lists ignore_label and uncertainty: the ignored labels would be the background's; leave one of "
                "them out, or take another uncertainty.background"
            )
        return self


COMPONENTS = tuple(ComponentOptions.model_fields)
ON_PIXELS = ("ohem", "focal", "boundary", "logit_adjustment", "blv")
"""Those that change what the cross-entropy of a pixel is, or what it weighs."""
BESIDE = ("dice", "lovasz", "template", "uncertainty")
"""Those that are terms of their own."""
LOSSES = (*ON_PIXELS, *BESIDE)


def options_of(components: tuple[str, ...], given: Any) -> Any:
    """``method.options`` with the defaults of every listed component filled in.

    Raises:
        ValueError: for options of a component that is not listed.
    """
    if isinstance(given, ComponentOptions):
        given = given.model_dump(exclude_none=True)
    if not isinstance(given, dict | None):
        return given
    # null is "no options"; under a name that is not known it stays, to be refused like any other value.
    options = {name: value for name, value in (given or {}).items() if value is not None or name not in COMPONENTS}
    for name in options:
        if name in COMPONENTS and name not in components:
            raise ValueError(
                f"{name} has no say: method.with does not list it; list it there, or set method.options.{name} to null"
            )
    return {**{name: {} for name in components if name in COMPONENTS}, **options}


def first_unknown(components: tuple[str, ...]) -> str | None:
    """What is wrong with ``method.with``, or None."""
    unknown = [name for name in components if name not in COMPONENTS]
    if unknown:
        return f"{unknown[0]!r} is not available; this version has: {', '.join(COMPONENTS)}"
    return "a component is listed twice" if len(set(components)) != len(components) else None
