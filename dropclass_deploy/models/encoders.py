"""timm's backbones as encoders: feature maps of images of any size, finest first, and their pretrained weights."""

from __future__ import annotations

import difflib
import math
from collections.abc import Sequence
from dataclasses import dataclass
from functools import partial
from typing import Any, cast

import timm
import torch
import torch.nn.functional as F
from timm.models import get_arch_pretrained_cfgs, get_pretrained_cfg
from torch import Tensor, nn
from torch.utils._python_dispatch import TorchDispatchMode

from dropclass_deploy.core.errors import ModelError, first_line
from dropclass_deploy.core.preprocess import Preprocess
from dropclass_deploy.models.fitting import Target
from dropclass_deploy.models.fixed_padding import fix_padding
from dropclass_deploy.models.modes import evaluating
from dropclass_deploy.models.weights import Weights, download_timm


@dataclass(frozen=True)
class Level:
    """One feature map: its index in timm's list, its stride in pixels, its channels."""

    index: int
    stride: int
    channels: int


class Encoder(nn.Module):
    """Images (N, 3, H, W) → feature maps (N, K_i, h_i, w_i), finest first.

    Args:
        backbone: timm's network with ``features_only``.
        levels: of the maps that it gives.
        multiple: of which the backbone's images have their sides; others are first enlarged bilinearly to the next one.
        channels_last: whether the backbone's maps are (N, h, w, K).
    """

    def __init__(self, backbone: nn.Module, levels: Sequence[Level], multiple: int, channels_last: bool) -> None:
        super().__init__()
        self.backbone = backbone
        self.channels = [level.channels for level in levels]
        self.multiple = multiple
        self.channels_last = channels_last

    def forward(self, images: Tensor) -> list[Tensor]:
        """The maps."""
        if self.multiple > 1:
            # No negative numbers: an integer division rounds them down in Python and towards zero in ONNX.
            size = [(side + self.multiple - 1) // self.multiple * self.multiple for side in images.shape[-2:]]
            images = F.interpolate(images, size=size, mode="bilinear", align_corners=False)
        maps = cast("list[Tensor]", self.backbone(images))
        return [one.permute(0, 3, 1, 2) for one in maps] if self.channels_last else maps


def timm_encoder(
    name: str, out_indices: Sequence[int] | None = None, *, finest: int = 4, count: int | None = None
) -> Encoder:
    """timm's backbone ``name`` with random weights.

    Args:
        name: as timm has it, with or without the tag of its weights.
        out_indices: of timm's feature maps; default all whose stride is at least ``finest``.
        finest: the smallest stride wanted, in pixels.
        count: how many of these maps, the finest first; default all.

    Raises:
        ModelError: for an unknown name, a backbone without feature maps of several strides, or indices out of range.
    """
    check_name(name)
    known = _levels(_create(name, None))
    levels = _first(_chosen(name, known, out_indices, finest), count, name)
    backbone = _create(name, [level.index for level in levels])
    fix_padding(backbone)
    channels_last = str(getattr(backbone, "output_fmt", "NCHW")).endswith("NHWC")
    return Encoder(backbone, levels, _multiple(name, backbone, levels, channels_last), channels_last)


def check_name(name: str) -> None:
    """Refuse a name that timm does not have.

    Raises:
        ModelError: with the closest names.
    """
    architecture, _, tag = name.partition(".")
    known = timm.is_model(architecture)
    tags = get_arch_pretrained_cfgs(architecture) if known else {}
    if not known or (tag and name not in tags):
        near = list(tags) or difflib.get_close_matches(architecture, timm.list_models(), n=4, cutoff=0.5)
        raise ModelError(
            f"timm has no backbone {name!r}",
            expected=f"one of timm.list_models(){', such as ' + ', '.join(near) if near else ''}",
        )


def preprocess_of(name: str) -> Preprocess:
    """The normalisation that timm's weights of ``name`` expect.

    Raises:
        ModelError: for an unknown name.
    """
    check_name(name)
    config = get_pretrained_cfg(name)
    return Preprocess() if config is None else Preprocess(mean=config.mean, std=config.std)


def timm_weights(name: str) -> Weights:
    """Where weights of timm's backbone ``name`` come from: its hub, by their names, by their tags, or "imagenet".

    "imagenet" is what timm loads for ``pretrained=True``: the tag in ``name``, else its default.
    """
    architecture = name.partition(".")[0]
    tagged = [full for full, config in get_arch_pretrained_cfgs(architecture).items() if config.has_weights]
    if not tagged:
        return Weights()
    names = {"imagenet": name, architecture: architecture, **{full: full for full in tagged}}
    names |= {full.partition(".")[2]: full for full in tagged if "." in full}
    return Weights({key: partial(download_timm, full) for key, full in names.items()})


def backbone_target(name: str, backbone: nn.Module) -> Target:
    """What checkpoints of timm's ``name`` are fitted to: they may hold its classification head besides."""
    with torch.device("meta"):
        whole = timm.create_model(name, pretrained=False)
    heads = {f"{key.partition('.')[0]}." for key in whole.state_dict()}
    heads -= {f"{key.removeprefix('model.').partition('.')[0]}." for key in backbone.state_dict()}
    return Target(backbone, frozenset(whole.state_dict()) | heads, prefixes=("encoder.", "backbone.", "features."))


def _create(name: str, out_indices: Sequence[int] | None) -> nn.Module:
    options: dict[str, Any] = {} if out_indices is None else {"out_indices": tuple(out_indices)}
    config = get_pretrained_cfg(name)
    attempts: list[dict[str, Any]] = [{}]
    if config is not None and config.fixed_input_size:
        # Windowed attention (Swin) takes other sizes when it is not told to insist on one.
        attempts.insert(0, {"strict_img_size": False})
    for extra in attempts:
        try:
            return cast(nn.Module, timm.create_model(name, pretrained=False, features_only=True, **options, **extra))
        except Exception as error:  # timm's factories raise whatever their networks do
            reason = error
    raise ModelError(
        f"timm's {name} gives no feature maps: {type(reason).__name__}: {first_line(reason, 120)}",
        expected="a backbone that timm.create_model builds with features_only=True",
    ) from reason


def _levels(backbone: nn.Module) -> list[Level]:
    info = cast(Any, backbone).feature_info
    # The maps that timm gives unasked need not begin with its index 0: DLA's has the full resolution, and stays out.
    return [Level(*level) for level in zip(info.out_indices, info.reduction(), info.channels(), strict=True)]


def _chosen(name: str, known: list[Level], out_indices: Sequence[int] | None, finest: int) -> list[Level]:
    if len({level.stride for level in known}) < 2:
        raise ModelError(
            f"timm's {name} gives feature maps of one stride only ({known[0].stride})",
            expected="a backbone with several strides, such as resnet18, convnext_tiny or swin_tiny_patch4_window7_224",
        )
    if out_indices is None:
        return [level for level in known if level.stride >= finest] or known
    by_index = {level.index: level for level in known}
    wanted: list[Any] = list(out_indices) if isinstance(out_indices, list | tuple | range) else []
    if (
        not wanted
        or wanted != sorted(set(wanted))
        or any(type(index) is not int or index not in by_index for index in wanted)
    ):
        strides = ", ".join(f"{level.index} (stride {level.stride})" for level in known)
        raise ModelError(f"out_indices is {out_indices!r}", expected=f"rising indices out of {strides}")
    return [by_index[index] for index in wanted]


def _first(levels: list[Level], count: int | None, name: str) -> list[Level]:
    if count is not None and count > len(levels):
        strides = ", ".join(str(level.stride) for level in levels)
        raise ModelError(
            f"timm's {name} has no {count} feature maps", expected=f"{len(levels)} at most (strides {strides})"
        )
    return levels[:count]


def _multiple(name: str, backbone: nn.Module, levels: list[Level], channels_last: bool) -> int:
    """1 where the backbone takes every size, in one way, and rounds up; else what it wants the sides divisible by."""

    def gives(height: int, width: int) -> bool:
        try:
            with torch.no_grad(), evaluating(backbone):
                maps = backbone(torch.zeros(1, 3, height, width))
        except Exception:  # noqa: BLE001, RUF100 (whatever a network raises on a size, it does not take that size)
            return False
        first = 1 if channels_last else 2
        sizes = [tuple(one.shape[first : first + 2]) for one in maps]
        return sizes == [(math.ceil(height / level.stride), math.ceil(width / level.stride)) for level in levels]

    if gives(1, 1) and gives(33, 47) and _one_way(backbone, [(33, 47), (64, 128), (96, 32)]):
        return 1
    stride = levels[-1].stride
    config = get_pretrained_cfg(name)
    candidates = [stride, 2 * stride, *([config.input_size[-1]] if config is not None else [])]
    taken = [multiple for multiple in candidates if gives(multiple, 2 * multiple)]
    if not taken:
        raise ModelError(
            f"timm's {name} takes images of one size only, or its maps are not its strides' part of the image",
            expected="a backbone that takes images of any size and pads its convolutions, such as resnet18 or convnext_tiny",
        )
    for multiple in taken:
        if _one_way(backbone, [(multiple, 2 * multiple), (2 * multiple, 4 * multiple), (3 * multiple, multiple)]):
            return int(multiple)
    return int(taken[0])


class _Fitting(TorchDispatchMode):
    """The operators inside the block that fit maps to sizes (resize, pad, roll), by name.

    Others tell nothing: a reshape is a view or a copy, as the strides of the moment have it.
    """

    def __init__(self) -> None:
        super().__init__()  # type: ignore[no-untyped-call]
        self.names: list[str] = []

    def __torch_dispatch__(self, func: Any, types: Any, args: Any = (), kwargs: Any = None) -> Any:
        if any(word in str(func) for word in ("upsample", "pad", "roll")):
            self.names.append(str(func))
        return func(*args, **(kwargs or {}))


def _one_way(backbone: nn.Module, sizes: list[tuple[int, int]]) -> bool:
    """Whether images of these sizes are fitted by the same operators.

    A network that asks for the size and then pads or resizes, or not, is traced into a graph that always does what it did
    for the traced size (MobileViT does so for its patches).
    """
    ways = []
    for height, width in sizes:
        try:
            with torch.no_grad(), evaluating(backbone), _Fitting() as fitting:
                backbone(torch.zeros(1, 3, height, width))
        except Exception:  # noqa: BLE001, RUF100 (as above)
            return False
        ways.append(fitting.names)
    return all(way == ways[0] for way in ways)
