"""From a torch network to one ONNX file.

The network is traced once (``trace``); the file with logits and the file with the mask are both made of that one graph,
so they cannot disagree about the network.
"""

from __future__ import annotations

import contextlib
import importlib.util
from collections.abc import Mapping
from dataclasses import dataclass
from pathlib import Path

import torch
from torch import Tensor, nn

from dropclass_deploy.core.errors import MissingExtraError, ModelError
from dropclass_deploy.core.preprocess import Preprocess
from dropclass_deploy.export import graphs
from dropclass_deploy.export.coarse_scale import coarse_scale
from dropclass_deploy.export.mask_format import AS_UINT8, MaskFormat
from dropclass_deploy.export.networks import ResizedLogits, checked_classes, deployable, first_line, run_example
from dropclass_deploy.export.quiet import quiet
from dropclass_deploy.export.shapes import Shape, checked_shape, describe_shape, fixed_size
from dropclass_deploy.export.size_check import refuse_one_sized

# Odd in both directions and unequal, so that a network which halves and doubles shows its true output size.
_ODD = (137, 171)
_EVEN = (128, 160)


@dataclass(frozen=True)
class Traced:
    """A network as an ONNX graph: ``image`` (N, 3, H, W) float32 → ``logits`` (N, C, H, W) float32."""

    graph: graphs.Model
    num_classes: int
    opset: int
    scale: int | None = None
    """Target pixels a coarse pixel at the end of the network, when that is a whole number (see ``coarse_scale``)."""


def export_logits(
    model: nn.Module, path: Path, shape: Shape, opset: int = 18, metadata: Mapping[str, str] | None = None
) -> None:
    """Write ``model`` as an ONNX file ``image`` float32 (N, 3, H, W) → ``logits`` float32 (N, C, H, W).

    Args:
        model: any segmentation network; it is copied, not touched.
        path: the ``.onnx`` file.
        shape: (N, H, W), None where dynamic.
        opset: 18–20.
        metadata: ``metadata_props`` of the file.

    Raises:
        ModelError: when the network cannot be exported; the message has the reason.
        MissingExtraError: when onnxscript is not installed.
    """
    save_logits(trace(model, shape, opset), path, metadata or {})


def export_mask(
    model: nn.Module,
    preprocess: Preprocess,
    path: Path,
    shape: Shape,
    opset: int = 18,
    metadata: Mapping[str, str] | None = None,
) -> None:
    """Write ``model`` as an ONNX file ``image`` uint8 (N, H, W, 3) RGB → ``mask`` uint8 (N, H, W).

    Arguments and errors are those of ``export_logits``; ``preprocess`` is the normalisation that goes into the graph.
    """
    save_mask(trace(model, shape, opset), preprocess, path, metadata or {})


def save_logits(traced: Traced, path: Path, metadata: Mapping[str, str]) -> None:
    """Write a traced network with its logits as output."""
    graphs.save(traced.graph, path, metadata, traced.opset)


def save_mask(
    traced: Traced, preprocess: Preprocess, path: Path, metadata: Mapping[str, str], form: MaskFormat = AS_UINT8
) -> None:
    """Write a traced network between an image and a mask, with the dense head."""
    graphs.save(graphs.with_mask_head(traced.graph, preprocess, form), path, metadata, traced.opset)


def save_sparse_mask(
    traced: Traced, preprocess: Preprocess, path: Path, metadata: Mapping[str, str], form: MaskFormat = AS_UINT8
) -> str:
    """Write the same with the sparse head; the reason when the network has no place for it, else ""."""
    model = graphs.with_sparse_head(traced.graph, preprocess, traced.scale, form)
    if isinstance(model, str):
        return model
    graphs.save(model, path, metadata, traced.opset)
    return ""


def trace(model: nn.Module, shape: Shape, opset: int = 18) -> Traced:
    """Trace ``model`` into an ONNX graph with the given static and dynamic dimensions.

    Raises:
        ModelError: when the network cannot be traced, has too many classes, goes another way at other sizes than at the
            traced one while height and width are dynamic, or the opset is not offered.
        MissingExtraError: when onnxscript is not installed.
    """
    if opset not in graphs.OPSETS:
        raise ModelError(f"opset {opset} is not offered", expected=f"one of {', '.join(map(str, graphs.OPSETS))}")
    if importlib.util.find_spec("onnxscript") is None:
        raise MissingExtraError("onnxscript", "export")
    checked_shape(shape)
    network = deployable(model)
    example, logits = _example(network, shape)
    num_classes = checked_classes(logits.shape[1])
    resize = logits.shape[-2:] != example.shape[-2:]
    resized = ResizedLogits(network, resize).eval()
    graph = graphs.tidy(_convert(resized, example, shape, opset))
    refuse_one_sized(graph, resized, shape)
    return Traced(graph, num_classes, opset, coarse_scale(graph, shape))


def plain_export(model: nn.Module, path: Path, shape: Shape, opset: int = 18) -> None:
    """``torch.onnx.export`` of the network as it stands: no head, no metadata, no tidying."""
    network = deployable(model)
    example, _ = _example(network, checked_shape(shape))
    graphs.save(_convert(ResizedLogits(network), example, shape, opset), path, {}, opset)


def _example(network: nn.Module, shape: Shape) -> tuple[Tensor, Tensor]:
    """Noise of a size that the network takes, and its logits; a batch of 2 where dynamic: tracing fixes sizes of 1."""
    batch = shape[0] or 2
    generator = torch.Generator().manual_seed(0)
    sizes = [size] if (size := fixed_size(shape)) else [_ODD, _EVEN]
    for size in sizes[:-1]:
        example = torch.randn(batch, 3, *size, generator=generator)
        # Many networks take only multiples of 32: a refusal of the odd size says nothing yet.
        with contextlib.suppress(ModelError):
            return example, run_example(network, example)
    example = torch.randn(batch, 3, *sizes[-1], generator=generator)
    return example, run_example(network, example)


def _convert(network: nn.Module, example: Tensor, shape: Shape, opset: int) -> graphs.Model:
    axes = dict(zip((0, 2, 3), shape, strict=True))
    dynamic = {axis: torch.export.Dim.DYNAMIC for axis, size in axes.items() if size is None}
    try:
        with quiet():
            program = torch.onnx.export(
                network.eval(),
                (example,),
                input_names=["image"],
                output_names=["logits"],
                opset_version=opset,
                dynamic_shapes=(dynamic,) if dynamic else None,
                dynamo=True,
                external_data=False,
                verbose=False,
            )
            if program is None:
                raise ModelError("torch.onnx.export gave no graph")
            return program.model_proto
    except ModelError:
        raise
    except Exception as error:
        # torch raises a dozen private types here; the root cause carries the reason, the rest is its own narration.
        raise _failure(error, shape) from error


def _failure(error: BaseException, shape: Shape) -> ModelError:
    root = error
    while root.__cause__ is not None:
        root = root.__cause__
    branches = "data-dependent" in str(root)
    reason = "its forward() branches on the values of a tensor" if branches else first_line(root)
    remedy = "replace Python branches on tensor values by torch.where"
    if not branches:
        remedy = "change forward()" if fixed_size(shape) else "change forward(), or fix the shape: --shape 1xHxW"
    return ModelError(
        f"the model cannot be exported to ONNX with shape {describe_shape(shape)}: {type(root).__name__}: {reason}",
        expected="a forward() that torch.export can trace",
        remedy=remedy,
    )
