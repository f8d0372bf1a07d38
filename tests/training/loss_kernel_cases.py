"""Cases for the loss kernels, and what they are held against: resized in float64 by torch, differentiated by autograd."""

from __future__ import annotations

from dataclasses import dataclass, replace

import torch
import torch.nn.functional as F
from torch import Tensor


@dataclass(frozen=True)
class Case:
    """Arguments of ``head_losses`` up to ``align_corners``, in its order."""

    logits: Tensor
    labels: Tensor
    weight: Tensor
    pixel_weight: Tensor | None
    scale: Tensor
    suppressed: int
    ignore_index: int
    align_corners: bool

    def arguments(self, device: torch.device) -> tuple[object, ...]:
        """The arguments, tensors on ``device``, strides kept."""
        values = (getattr(self, name) for name in self.__dataclass_fields__)
        return tuple(value.to(device) if isinstance(value, Tensor) else value for value in values)


def random_case(
    small: tuple[int, int],
    size: tuple[int, int],
    *,
    classes: int = 4,
    images: int = 1,
    ignore_index: int = 255,
    label_dtype: torch.dtype = torch.int64,
    suppressed: int = 1,
    pixel_weight: bool = False,
    align_corners: bool = False,
    spread: float = 3.0,
) -> Case:
    """A case of fixed random numbers; a fifth of the pixels is ignored, one class has weight 0."""
    generator = torch.Generator().manual_seed(classes * 1000 + size[0])
    labels = torch.randint(0, classes, (images, *size), generator=generator)
    labels[torch.rand(images, *size, generator=generator) < 0.2] = ignore_index
    weight = torch.rand(classes, generator=generator) + 0.5
    weight[-1] = 0.0
    return Case(
        logits=torch.randn(images, classes, *small, generator=generator) * spread,
        labels=labels.to(label_dtype),
        weight=weight,
        pixel_weight=torch.rand(images, *size, generator=generator) + 0.5 if pixel_weight else None,
        scale=torch.tensor([0.3, 0.7]),
        suppressed=suppressed,
        ignore_index=ignore_index,
        align_corners=align_corners,
    )


def reference(case: Case) -> tuple[Tensor, Tensor]:
    """The two sums and the gradient with respect to the small logits, all float64."""
    logits = case.logits.double().contiguous().requires_grad_()
    full = F.interpolate(logits, case.labels.shape[1:], mode="bilinear", align_corners=case.align_corners)
    log_probability = full.log_softmax(1)
    labels = case.labels.long()
    counted = (labels != case.ignore_index) & (labels >= 0) & (labels < logits.shape[1])
    ids = labels.where(counted, torch.zeros_like(labels))
    factor = case.weight.double()[ids] * counted
    if case.pixel_weight is not None:
        factor = factor * case.pixel_weight.double()
    cross_entropy = -(log_probability.gather(1, ids[:, None])[:, 0] * factor).sum()
    suppression = cross_entropy * 0
    if case.suppressed >= 0:
        suppression = (log_probability[:, case.suppressed].exp() * counted).sum()
    (gradient,) = torch.autograd.grad(
        case.scale[0].double() * cross_entropy + case.scale[1].double() * suppression, logits
    )
    return torch.stack([cross_entropy, suppression]).detach(), gradient


def with_logits(case: Case, logits: Tensor) -> Case:
    """The same case with other logits."""
    return replace(case, logits=logits)
