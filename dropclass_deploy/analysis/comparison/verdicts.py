"""What may be said of a class: better, worse, or that the data cannot tell.

A class in fewer than 10 images or with fewer than 1,000 truth pixels is not judged, as in the parity gate: its interval
says more about luck than about networks. The others are judged together. At 95 %, one of twenty classes stands out by
chance even where nothing differs; so a class is called better or worse only when its bootstrap p-value stands after Holm's
step-down correction (Scandinavian Journal of Statistics 6, 1979) at 5 % over all judged classes: then the chance of *any*
false call is at most about 5 %. The interval beside it is the plain one, of the class alone.
"""

from __future__ import annotations

from collections.abc import Sequence

import numpy as np

from dropclass_deploy.serving.parity.rule import MIN_IMAGES, MIN_PIXELS

BETTER, WORSE, CANNOT_TELL = "better", "worse", "cannot tell"
LEVEL = 0.05

ABSENT = "no pixel in the truth"
TOO_FEW = f"fewer than {MIN_IMAGES} images or {MIN_PIXELS:,} pixels"
TOO_FEW_IMAGES = f"fewer than {MIN_IMAGES} images"
NO_CLASS_JUDGED = "none of its classes can be judged"
ACROSS_ZERO = "the interval reaches across zero"
BY_CHANCE = "stands out alone, but not among so many classes"


def enough(images: int, pixels: int) -> bool:
    """Whether a class may be judged."""
    return enough_images(images) and pixels >= MIN_PIXELS


def enough_images(images: int) -> bool:
    """Whether anything may be judged on so many: drawn again, a few images show less spread than there is."""
    return images >= MIN_IMAGES


def holm(chances: Sequence[float]) -> list[bool]:
    """Which hypotheses of no difference are rejected at ``LEVEL`` by Holm's step-down procedure, in the given order."""
    order = np.argsort(chances, kind="stable")
    rejected = [False] * len(chances)
    for rank, index in enumerate(order):
        if chances[index] > LEVEL / (len(chances) - rank):
            break
        rejected[index] = True
    return rejected


def stands_out(interval: tuple[float, float]) -> bool:
    """Whether a 95 % interval leaves out "no difference"."""
    return interval[0] > 0 or interval[1] < 0


def verdict_of(delta: float, interval: tuple[float, float], *, certain: bool) -> str:
    """ "better" or "worse" for a difference that is certain enough, and whose interval agrees."""
    if not (certain and stands_out(interval)):
        return CANNOT_TELL
    return BETTER if delta > 0 else WORSE
