import io
from pathlib import Path

import numpy as np
import onnx
import onnxruntime
import pytest
import torch
from PIL import Image

from dropclass_deploy.core.preprocess import Preprocess
from dropclass_deploy.export.graphs import operator_counts
from dropclass_deploy.export.peers import TorchEager, export_naive
from dropclass_deploy.export.reference import TorchReference
from dropclass_deploy.serving.benchmark.contender import SCOPES


def encoded(image: np.ndarray) -> bytes:
    stream = io.BytesIO()
    Image.fromarray(image).save(stream, format="PNG")
    return stream.getvalue()


@pytest.mark.parametrize("size", [None, (16, 24)])
def test_end_to_end_is_the_reference_mask(networks, size: tuple[int, int] | None) -> None:
    preprocess, image = Preprocess(size=size), networks.Frames().image(2)
    peer = TorchEager(networks.Tiny(), preprocess)
    mask = peer.segment(encoded(image))
    np.testing.assert_array_equal(mask, TorchReference(networks.Tiny(), preprocess)(image))


def test_every_scope_runs_and_end_to_end_has_stages(networks, preprocess: Preprocess) -> None:
    queries = TorchEager(networks.Tiny(), preprocess).prepare(encoded(networks.Frames().image(0)))
    assert set(queries) == set(SCOPES)
    stages = {scope: dict(query()) for scope, query in queries.items()}
    assert list(stages["end_to_end"]) == ["decode", "preprocess", "infer", "mask"]
    assert all(spent >= 0 for spent in stages["end_to_end"].values())
    assert stages["model"] == stages["transfer"] == {}


def test_threads_are_set_inside_a_query_only(networks, preprocess: Preprocess) -> None:
    seen: list[int] = []

    class Spy(networks.Tiny):
        def forward(self, images):
            seen.append(torch.get_num_threads())
            return super().forward(images)

    before = torch.get_num_threads()
    peer = TorchEager(Spy(), preprocess, threads=before + 1)
    peer.segment(encoded(networks.Frames().image(0)))
    assert seen == [before + 1]
    assert torch.get_num_threads() == before


def test_naive_file_has_neither_head_nor_normalisation(networks, tmp_path: Path, preprocess: Preprocess) -> None:
    export_naive(networks.Tiny(), tmp_path / "naive.onnx", (1, 24, 32))
    counts = operator_counts(onnx.load(tmp_path / "naive.onnx"))
    assert set(counts) == {"Conv", "Relu"}
    session = onnxruntime.InferenceSession(tmp_path / "naive.onnx", providers=["CPUExecutionProvider"])
    image = networks.Frames().image(0)
    logits = session.run(None, {"image": preprocess.normalise(image)})[0]
    want = TorchReference(networks.Tiny(), preprocess)(image)
    # 768 pixels of random logits: no two largest so close that float32 rounding swaps them
    np.testing.assert_array_equal(logits.argmax(axis=1)[0], want)
