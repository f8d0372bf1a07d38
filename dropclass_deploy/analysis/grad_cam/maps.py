"""Grad-CAM maps of a segmentation network.

Selvaraju et al., *Grad-CAM*, arXiv 1610.02391, Eq. 1–2, with the score of Vinogradova et al., *Seg-Grad-CAM*, arXiv
2002.11434: y = Σ_{p ∈ M} logit_c(p) over a set M of pixels. Feature map k weighs α_k, the mean of ∂y/∂A_k over its
places, and the map is ReLU(Σ_k α_k A_k).

Where the classifier is one linear convolution, ∂y/∂A does not depend on the image: no backward pass is needed. For a 1×1
classifier α_k = |M| / (h·w) · w_ck, so that M changes the map's scale only. For k×k taps, each tap counts as many times
as it lies on the map.
"""

from __future__ import annotations

from collections.abc import Iterator, Sequence
from contextlib import contextmanager
from dataclasses import dataclass, field
from typing import Any

import numpy as np
import numpy.typing as npt
import torch
import torch.nn.functional as F
from torch import Tensor, nn

from dropclass_deploy.analysis.subject import Subject
from dropclass_deploy.core.errors import ModelError
from dropclass_deploy.core.sliding_window import blended_rows
from dropclass_deploy.data.images import Pixels, resize_image
from dropclass_deploy.models.modes import evaluating
from dropclass_deploy.models.outputs import logits_of
from dropclass_deploy.training.dropclass import Classifier

Maps = npt.NDArray[np.float32]


def class_maps(
    model: nn.Module,
    classifier: Classifier | None,
    images: Tensor,
    classes: Sequence[int],
    *,
    layer: str | None = None,
    pixels: Tensor | None = None,
) -> Tensor:
    """Grad-CAM of several classes, not negative, at the features' resolution.

    Mode, gradients and hooks of the model are left as they were.

    Args:
        model: (N, 3, H, W) → logits.
        classifier: of the model; may be None with a ``layer``.
        images: (N, 3, H, W), normalised.
        classes: ids, n of them.
        layer: the module whose output is A; default the input of the classifier. With a layer, y sums the network's own
            logits, by autograd.
        pixels: M, bool, at the resolution of the logits that are summed: those of the classifier, or with a ``layer``
            those of the network; default all.

    Returns:
        float (N, n, h, w).

    Raises:
        ModelError: without classifier and layer, for a layer that does not exist or gives no feature map, or for logits
            that do not depend on it.
    """
    if layer is None and classifier is None:
        raise ModelError(
            "Grad-CAM needs a layer: the network's classifier was not found",
            expected="a classifier whose input is explained",
            remedy="name a layer",
        )
    if layer is None and has_closed_form(model, classifier) and classifier is not None:
        return _closed_form(model, classifier.path, images, classes, pixels)
    return _by_gradient(model, classifier, images, classes, layer, pixels)


def has_closed_form(model: nn.Module, classifier: Classifier | None) -> bool:
    """Whether ∂y/∂A is known without a backward pass: one linear convolution whose padding is zeros."""
    if classifier is None or not classifier.linear:
        return False
    return getattr(model.get_submodule(classifier.path), "padding_mode", "zeros") == "zeros"


def maps_on_image(subject: Subject, image: Pixels, classes: Sequence[int], layer: str | None = None) -> Maps:
    """Grad-CAM of an image uint8 (H, W, 3) as the subject sees it: float32 (n, H, W), not negative.

    The image is resized as the preprocessing says; with a sliding window, each window has its maps, blended as its logits
    are. Maps are resized as the network resizes its logits.

    Raises:
        ModelError: as ``class_maps``.
    """
    preprocess, found = subject.segment.preprocess, subject.classifier
    corners = bool(found is not None and layer is None and found.align_corners)

    def run(planes: npt.NDArray[np.float32]) -> Maps:
        images = torch.from_numpy(planes).to(subject.segment.device)
        maps = class_maps(subject.model, found, images, classes, layer=layer)
        values: Maps = _resized(maps, planes.shape[-2:], corners).cpu().numpy()
        return values

    seen = image if preprocess.size is None else resize_image(image, preprocess.size)
    if preprocess.window is None or seen.shape[:2] == preprocess.window.size:
        maps = run(preprocess.normalise(seen))
    else:
        maps = np.concatenate(list(blended_rows(seen, preprocess.window, preprocess.normalise, run)), axis=1)[None]
    final: Maps = _resized(torch.from_numpy(maps), image.shape[:2], False)[0].numpy()
    return final


def tap_weights(conv: nn.Conv2d, classes: Sequence[int], pixels: Tensor) -> Tensor:
    """α (n, K) of a stride-1, same-size convolution: (1 / h·w) Σ_taps w · (places of M whose tap lies on the map).

    Args:
        conv: the classifier.
        classes: ids.
        pixels: bool (h, w), M.
    """
    height, width = pixels.shape
    weight = conv.weight.detach()[list(classes)]
    total = weight.new_zeros(weight.shape[:2])
    # Of an even number of padded places, PyTorch puts the odd one last.
    before = [dilation * (size - 1) // 2 for dilation, size in zip(conv.dilation, conv.kernel_size, strict=True)]
    for row in range(conv.kernel_size[0]):
        down = row * conv.dilation[0] - before[0]
        rows = pixels[max(0, -down) : max(0, height - max(0, down))]
        for column in range(conv.kernel_size[1]):
            right = column * conv.dilation[1] - before[1]
            places = rows[:, max(0, -right) : max(0, width - max(0, right))].sum()
            total = total + weight[:, :, row, column] * places
    return total / (height * width)


def _closed_form(model: nn.Module, path: str, images: Tensor, classes: Sequence[int], pixels: Tensor | None) -> Tensor:
    conv = model.get_submodule(path)
    if not isinstance(conv, nn.Conv2d):
        raise ModelError(f"the classifier {path!r} is a {type(conv).__name__}", expected="a Conv2d")
    with torch.inference_mode(), evaluating(model), _watching(conv, "input", leaf=False) as seen:
        model(images)
    features = _only(seen.features, path)
    with torch.inference_mode():
        whole = torch.ones(features.shape[-2:], dtype=torch.bool, device=features.device)
        weights = tap_weights(conv, classes, whole if pixels is None else pixels)
        return torch.einsum("ck,nkhw->nchw", weights, features).relu()


def _by_gradient(
    model: nn.Module,
    classifier: Classifier | None,
    images: Tensor,
    classes: Sequence[int],
    layer: str | None,
    pixels: Tensor | None,
) -> Tensor:
    path = layer if layer is not None else classifier.path if classifier is not None else ""
    module = _module(model, path)
    side = "input" if layer is None else "output"
    with torch.inference_mode(False), torch.enable_grad(), evaluating(model), _frozen(model):
        with _watching(module, side, leaf=True) as seen:
            output = model(images.clone())
        features = _only(seen.features, path)
        logits = logits_of(output if layer is not None else seen.outputs[0])
        chosen = logits if pixels is None else logits * pixels
        maps = [_one_map(chosen[:, one].sum(), features, path) for one in classes]
    return torch.stack(maps, dim=1)


def _one_map(score: Tensor, features: Tensor, path: str) -> Tensor:
    """(N, h, w): one class, by its score summed over pixels and images."""
    gradient = None
    if score.requires_grad:
        gradient = torch.autograd.grad(score, features, retain_graph=True, allow_unused=True)[0]
    if gradient is None:
        raise ModelError(f"the logits do not depend on {path!r}", expected="a layer on the way to the logits")
    weights = gradient.mean(dim=(2, 3))
    return torch.einsum("nk,nkhw->nhw", weights, features.detach()).relu().detach()


@dataclass
class _Sight:
    features: list[Tensor] = field(default_factory=list)
    outputs: list[Any] = field(default_factory=list)


@contextmanager
def _watching(module: nn.Module, side: str, *, leaf: bool) -> Iterator[_Sight]:
    """What goes into (or comes out of) a module; as a leaf of the graph that the rest of the pass is recorded from."""
    sight = _Sight()

    def taken(value: Any) -> Any:
        if not isinstance(value, Tensor) or value.ndim != 4:
            raise ModelError(
                f"the layer's {side} is a {type(value).__name__}"
                + (f" of shape {tuple(value.shape)}" if isinstance(value, Tensor) else ""),
                expected="one feature map (N, K, h, w)",
            )
        sight.features.append(value.detach().requires_grad_() if leaf else value.clone())
        # A copy goes on: what follows may write into it, which a leaf does not allow.
        return sight.features[-1].clone() if leaf else value

    def before(_: nn.Module, inputs: tuple[Any, ...]) -> Any:
        return (taken(inputs[0]), *inputs[1:]) if side == "input" else None

    def after(_: nn.Module, __: tuple[Any, ...], output: Any) -> Any:
        sight.outputs.append(output)
        return taken(output) if side == "output" else None

    handles = [module.register_forward_pre_hook(before), module.register_forward_hook(after)]
    try:
        yield sight
    finally:
        for handle in handles:
            handle.remove()


@contextmanager
def _frozen(model: nn.Module) -> Iterator[None]:
    """No parameter asks for a gradient inside the block: what comes before the layer is not recorded."""
    asking = [one for one in model.parameters() if one.requires_grad]
    for one in asking:
        one.requires_grad_(False)
    try:
        yield
    finally:
        for one in asking:
            one.requires_grad_(True)


def _module(model: nn.Module, path: str) -> nn.Module:
    try:
        return model.get_submodule(path)
    except AttributeError as error:
        names = [name for name, module in model.named_modules() if isinstance(module, nn.Conv2d)]
        raise ModelError(
            f"the model has no module {path!r}", expected=f"for example {', '.join(names[-3:]) or 'a Conv2d'}"
        ) from error


def _only(features: list[Tensor], path: str) -> Tensor:
    if len(features) != 1:
        raise ModelError(f"the layer {path!r} runs {len(features)} times in one pass", expected="once")
    return features[0]


def _resized(maps: Tensor, size: tuple[int, ...], corners: bool) -> Tensor:
    if tuple(maps.shape[-2:]) == tuple(size):
        return maps
    return F.interpolate(maps, size=tuple(size), mode="bilinear", align_corners=corners)
