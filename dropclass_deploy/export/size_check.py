"""Whether a traced graph is the network at sizes other than the one it was traced at.

``torch.export`` follows one way through ``forward()``. Where that way depends on the image's size (pad or resize only when
the sides do not divide), the graph always goes the way of its example, and says nothing.
"""

from __future__ import annotations

import numpy as np
import onnxruntime as ort
import torch
from torch import nn

from dropclass_deploy.core.errors import ModelError
from dropclass_deploy.export import graphs
from dropclass_deploy.export.networks import first_line, run_example
from dropclass_deploy.export.shapes import Shape, fixed_size

_SIZES = ((75, 101), (192, 96), (224, 64))
_TOLERANCE = 0.05
"""Of the logits' norm. Kernels differ by 1e-5; at sizes that strides do not divide, resizes may round apart by a pixel's
weight here and there; another way through the network changes everything."""


def refuse_one_sized(graph: graphs.Model, network: nn.Module, shape: Shape) -> None:
    """Run a graph with dynamic height and width at other sizes against the network that it was traced from.

    Sizes that the network itself refuses are passed over.

    Raises:
        ModelError: when the graph fails or gives other logits.
    """
    if fixed_size(shape):
        return
    session = open_graph(graph)
    generator = torch.Generator().manual_seed(1)
    for height, width in _SIZES:
        images = torch.randn(shape[0] or 1, 3, height, width, generator=generator)
        try:
            expected = run_example(network, images).numpy()
        except ModelError:
            continue
        problem = _problem(session, images.numpy(), expected)
        if problem:
            raise ModelError(
                f"the model's forward() goes another way at {height}×{width} pixels than at the traced size: {problem}",
                expected="a forward() that treats all sizes alike, for a file of dynamic height and width",
                remedy="fix the shape (--shape 1xHxW, the size of your images), or change forward()",
            )


def _problem(session: ort.InferenceSession, images: np.ndarray, expected: np.ndarray) -> str:
    try:
        found = session.run(["logits"], {"image": images})[0]
    except Exception as error:  # onnxruntime has a dozen exceptions of its own
        return f"the exported file fails ({first_line(error, 120)})"
    if found.shape != expected.shape:
        return f"the exported file gives logits of shape {found.shape}, not {expected.shape}"
    distance = float(np.linalg.norm(found - expected) / max(float(np.linalg.norm(expected)), 1e-12))
    return f"the exported file's logits are {distance:.0%} off" if distance > _TOLERANCE else ""


def open_graph(graph: graphs.Model) -> ort.InferenceSession:
    """A graph in ONNX Runtime on the CPU, silent."""
    options = ort.SessionOptions()
    options.log_severity_level = 4
    return ort.InferenceSession(graph.SerializeToString(), options, providers=["CPUExecutionProvider"])
