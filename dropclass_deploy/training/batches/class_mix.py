"""Class mixing: a class leaves an image, and another training image shows, with its labels, where it was.

DropClass (arXiv 2111.00531) drops a class from the last features, where a convolutional network has long since looked at
the neighbours: what a class's surroundings say about it is in the features of *its* pixels by then. Here the class is
dropped where it enters. A cyclist is then also seen without the cycle path around it, on whatever the other image has there.

Pasting the pixels of some classes over another image is ClassMix (Olsson et al., arXiv 2007.07936), made for unlabelled
images: half of the classes, labels from a teacher. Here both images are labelled, each class leaves by a draw of its own,
and every pixel keeps a true label.
"""

from __future__ import annotations

from dataclasses import dataclass

import torch
from torch import Tensor

from dropclass_deploy.training.batches.draws import draw, generator_for
from dropclass_deploy.training.recipe import ClassMixOptions


@dataclass(frozen=True)
class ClassMix:
    """Which images are mixed, and what leaves them.

    Attributes:
        images: share of the images that are mixed, in [0, 1].
        classes: probability that a class of such an image leaves, in [0, 1].
        ignore_index: label that is no class: its pixels stay.
    """

    images: float
    classes: float
    ignore_index: int

    @classmethod
    def from_recipe(cls, options: ClassMixOptions | None, ignore_index: int) -> ClassMix | None:
        """What a recipe asks for; None when nothing is to be mixed."""
        if options is None or not options.images or not options.classes:
            return None
        return cls(options.images, options.classes, ignore_index)

    @staticmethod
    def generator(seed: int, number: int) -> torch.Generator:
        """The draws of one sample, the first of which choose the donor."""
        return generator_for(seed, 5, number)

    def donor(self, index: int, count: int, generator: torch.Generator) -> int | None:
        """The image, of ``count``, that shows through image ``index``: any other, equally likely; None for no mixing."""
        if count < 2 or draw(generator, 0.0, 1.0) >= self.images:
            return None
        other = int(torch.randint(count - 1, (), generator=generator))
        return other + (other >= index)

    def __call__(
        self, image: Tensor, mask: Tensor, other: Tensor, other_mask: Tensor, generator: torch.Generator
    ) -> tuple[Tensor, Tensor]:
        """Let classes leave.

        Args:
            image: (3, h, w), any type.
            mask: uint8 (h, w).
            other: what shows in their place, as ``image``.
            other_mask: its labels, ignored pixels included.
            generator: source of the draws, one a class in ``mask``, in the order of the ids.

        Returns:
            The mixed image and mask.
        """
        leaves = torch.zeros(256, dtype=torch.bool)
        for class_id in torch.unique(mask).tolist():
            leaves[class_id] = class_id != self.ignore_index and draw(generator, 0.0, 1.0) < self.classes
        gone = leaves[mask.long()]
        return torch.where(gone, other, image), torch.where(gone, other_mask, mask)
