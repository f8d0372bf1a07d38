"""What a network of the package is asked for, whichever it is."""

from __future__ import annotations

from pathlib import Path

import numpy as np
import onnxruntime
import torch
from torch import Tensor, nn

from dropclass_deploy.export.shapes import DYNAMIC
from dropclass_deploy.export.to_onnx import export_logits
from dropclass_deploy.training.dropclass import Classifier, DropClass, FoldedHead, fold, strip


def images(count: int, height: int, width: int) -> Tensor:
    return torch.randn(count, 3, height, width, generator=torch.Generator().manual_seed(1))


def parameters(model: nn.Module) -> int:
    return sum(parameter.numel() for parameter in model.parameters())


def check_gradients(model: nn.Module) -> None:
    """All parameters get one, in channels_last, at an odd size."""
    logits = model.train()(images(2, 33, 31).to(memory_format=torch.channels_last))
    assert logits.shape == (2, 3, 33, 31)
    (logits * torch.randn_like(logits)).sum().backward()
    assert all(one.grad is not None and one.grad.isfinite().all() and one.grad.any() for one in model.parameters())


def check_dropclass(model: nn.Module) -> tuple[Classifier, FoldedHead]:
    """It is found, folded and stripped; the network stays as it was."""
    given = images(1, 24, 20)
    with torch.no_grad():
        before = model.eval()(given)
    method = DropClass(model).eval()
    folded = fold(method).eval()
    with torch.no_grad():
        out = method(given, dropped=None)
        torch.testing.assert_close(folded(given), out.drop_logits, rtol=1e-4, atol=1e-5)  # float32 through other sums
    assert strip(method) is model
    with torch.no_grad():
        assert torch.equal(model(given), before)
    return method.classifier, folded.classifier


def check_onnx(model: nn.Module, path: Path) -> None:
    """ONNX Runtime gives the same logits at sizes that the export did not see."""
    export_logits(model.eval(), path, DYNAMIC)
    session = onnxruntime.InferenceSession(path, providers=["CPUExecutionProvider"])
    for size in [(2, 32, 48), (1, 33, 21), (1, 1, 1)]:
        given = images(*size)
        with torch.no_grad():
            expected = model(given).numpy()
        # Some ten convolutions of float32 whose sums are in another order.
        np.testing.assert_allclose(session.run(None, {"image": given.numpy()})[0], expected, rtol=1e-4, atol=1e-5)
