"""Options of the components that change a step's loss."""

from __future__ import annotations

from typing import Annotated, Literal, Self

from pydantic import Field, model_validator

from dropclass_deploy.training.recipe.section import Float, Fraction, Section

Factor = Annotated[Float, Field(gt=0, le=1e6)]
IGNORE = "ignore"
"""``uncertainty.background`` for the pixels that have no label."""


class OhemOptions(Section):
    """Online hard example mining: the cross-entropy of the hard pixels alone, see ``losses.hard_pixel_weight``.

    Hard is a pixel whose true class has a probability below ``threshold``; at least the share ``min_kept`` of the
    labelled pixels is kept.
    """

    threshold: Annotated[Fraction, Field(gt=0)] = 0.7
    min_kept: Annotated[Fraction, Field(gt=0)] = 0.0625


class FocalOptions(Section):
    """Focal loss in the place of the cross-entropy, see ``losses.focal_loss``; ``gamma`` 0 is the cross-entropy."""

    gamma: Annotated[Float, Field(ge=0, le=10)] = 2.0


class DiceOptions(Section):
    """``weight`` × (1 − Dice) beside the cross-entropy, see ``losses.dice_loss``."""

    weight: Factor = 1.0


class LovaszOptions(Section):
    """``weight`` × Lovász-softmax beside the cross-entropy, see ``losses.lovasz_softmax``.

    ``stride`` takes every so many-th pixel in each direction: the sort of all pixels is what it costs.
    """

    weight: Factor = 1.0
    stride: Annotated[int, Field(ge=1, le=64, strict=True)] = 1


class LogitAdjustmentOptions(Section):
    """``tau`` × log of a class's frequency is added to its logits in training, see ``losses.logit_shift``."""

    tau: Factor = 1.0


class BlvOptions(Section):
    """Balanced logit variation: noise on the logits, more for rarer classes; see ``losses.balanced_variation``."""

    sigma: Factor = 4.0


class BoundaryOptions(Section):
    """Pixels within ``width`` pixels of another class weigh ``weight`` in the cross-entropy, the others 1."""

    weight: Factor = 5.0
    width: Annotated[int, Field(ge=1, le=64, strict=True)] = 1


class UncertaintyOptions(Section):
    """``weight`` × the variance of the logits over ``passes`` of dropout on the classifier's input, see ``methods.terms``.

    ``background`` is the class whose pixels are let off (the variance counts 1 − its probability): a name of the data,
    "ignore" for an output of its own that learns the pixels without a label and is not deployed, or null for none.
    """

    weight: Factor = 1.0
    rate: Annotated[Float, Field(gt=0, lt=1)] = 0.3
    passes: Annotated[int, Field(ge=2, le=16, strict=True)] = 3
    background: str | None = None


class TemplateOptions(Section):
    """Logits pulled toward those of the image's surest pixel of their class, see ``losses.template_loss``.

    ``weight`` is of that term, ``push`` of the one that keeps the templates of an image apart; 0 leaves one out.
    """

    similarity: Literal["cosine", "correlation"] = "cosine"
    weight: Annotated[Float, Field(ge=0, le=1e6)] = 1.0
    push: Annotated[Float, Field(ge=0, le=1e6)] = 0.0

    @model_validator(mode="after")
    def _does_something(self) -> Self:
        if not self.weight and not self.push:
            raise ValueError("weight and push are both 0: it would do nothing; leave template out of method.with")
        return self


class IgnoreLabelOptions(Section):
    """The labels of a random class are ignored, nothing else: DropClass's control (``drop_max`` and ``drop_among`` apply)."""
