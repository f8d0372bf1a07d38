"""Options of what decides which pixels a network sees, how often, and how much they count."""

from __future__ import annotations

from math import fsum
from typing import Annotated, Self

from pydantic import ConfigDict, Field, model_validator

from dropclass_deploy.training.recipe.section import Float, Positive, Section

_SHARES_SUM_TO_ONE = 1e-3
"""Within this: three equal shares may be written 0.333 each."""


DEFAULT_CROPS = 10


class EnetWeightsOptions(Section):
    """Class weights 1 / ln(``c`` + the class's share of the pixels): bounded, unlike median frequency balancing.

    Paszke et al., arXiv 1606.02147, section 5.2, with their c = 1.02. Nearer to 1, rare classes weigh more.
    """

    c: Annotated[Float, Field(gt=1)] = 1.02


class RareClassSamplingOptions(Section):
    """A class is drawn first, rare ones more often, then an image that shows it, then a crop that does.

    See ``training.batches.rare_classes``. ``temperature``: of the softmax over the classes; the lower, the more often rare
    classes. ``min_pixels``: of the class, in the image as it is stored and again in the crop; null is a 200th of the pixels
    of the crop (of the network's input without ``train.crop``). ``crops``: windows that are tried for one sample, the last
    around a pixel of the class; without crops the images alone are chosen.
    """

    temperature: Annotated[Float, Field(gt=0)] = 0.01
    min_pixels: Positive | None = None
    crops: Annotated[int, Field(ge=1, le=1000, strict=True)] = DEFAULT_CROPS


class ResampleOptions(Section):
    """Every image that shows the class stands ``times`` times in a pass over the data."""

    model_config = ConfigDict(frozen=True, extra="forbid", populate_by_name=True)

    of: Annotated[str, Field(alias="class", min_length=1)]
    times: Annotated[int, Field(ge=2, le=100, strict=True)] = 2


Portion = Annotated[Float, Field(gt=0, le=1)]
Phase = tuple[Portion, Portion]
"""Share of the run's steps; fraction of the crop's height and width."""


class CurriculumOptions(Section):
    """Small crops first: each of ``phases`` is [share of the steps, fraction of the crop's height and width].

    The fraction is of ``train.crop``, or of the whole image when that is null; see ``training.batches.curriculum``.
    """

    phases: Annotated[tuple[Phase, ...], Field(min_length=1, max_length=100)] = ((0.4, 0.6), (0.3, 0.75), (0.3, 1.0))

    @model_validator(mode="after")
    def _whole(self) -> Self:
        total = fsum(share for share, _ in self.phases)
        if abs(total - 1) > _SHARES_SUM_TO_ONE:
            raise ValueError(f"the shares of the phases, the first number of each, sum to {total:g}, not to 1")
        return self
