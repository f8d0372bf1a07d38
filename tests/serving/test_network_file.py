"""A network file is checked at the moment it is opened, by everything that loads, builds from or ships one."""

from __future__ import annotations

import gc
from collections.abc import Callable
from pathlib import Path

import numpy as np
import pytest
from hostile_artifacts import graph, weights_at
from serving_builders import conv_weights, random_images, save_logits, write_artifact

from dropclass_deploy.core.errors import ArtifactError, UserError
from dropclass_deploy.core.preprocess import Preprocess
from dropclass_deploy.serving import Segmenter
from dropclass_deploy.serving.artifact import open_artifact
from dropclass_deploy.serving.emit import emit_triton
from dropclass_deploy.serving.network_file import network_file
from dropclass_deploy.serving.runtimes.onnx_runtime import OnnxRuntime

IMAGE = random_images(1)[0]
FIXED = Preprocess(size=(16, 20))


@pytest.fixture
def artifact(tmp_path: Path) -> Path:
    return write_artifact(tmp_path / "a")


def test_a_logits_file_swapped_under_an_open_segmenter_is_refused(artifact: Path) -> None:
    """What ``export --overwrite`` under a running server does: the logits are opened only when first needed."""
    with Segmenter.load(artifact) as segmenter:
        before = segmenter(IMAGE).mask
        save_logits(artifact / "models/model.onnx", conv_weights(seed=7))
        with pytest.raises(ArtifactError, match=r"model\.onnx has changed since the artifact was opened.*restart"):
            segmenter(IMAGE, size=(12, 16))
        np.testing.assert_array_equal(segmenter(IMAGE).mask, before)


def test_a_file_swapped_after_the_check_of_the_folder_is_refused(artifact: Path) -> None:
    opened = open_artifact(artifact)
    assert network_file(opened) == artifact / "models/model.mask.onnx"
    save_logits(artifact / "models/model.mask.onnx", conv_weights())
    with pytest.raises(ArtifactError, match="changed since the artifact was opened"):
        network_file(opened)
    with pytest.raises(ArtifactError, match="changed since the artifact was opened"):
        Segmenter(opened)


def test_nothing_is_shipped_that_serving_refuses(artifact: Path, tmp_path: Path) -> None:
    graph("models/model.mask.onnx", weights_at("/etc/passwd"))(artifact)
    with pytest.raises(ArtifactError, match="outside of itself"):
        emit_triton(artifact, tmp_path / "out")
    assert not (tmp_path / "out").exists()


@pytest.mark.parametrize("use", [lambda own: own(IMAGE), lambda own: own(IMAGE, size=(12, 16))])
@pytest.mark.parametrize("logits_open", [False, True])
def test_a_closed_segmenter_says_so_and_opens_nothing(
    artifact: Path, use: Callable[[Segmenter], object], logits_open: bool
) -> None:
    segmenter = Segmenter.load(artifact)
    if logits_open:
        segmenter(IMAGE, size=(12, 16))
    segmenter.close()
    segmenter.close()
    with pytest.raises(UserError, match=r"^the segmenter is closed; load it again"):
        use(segmenter)
    with pytest.raises(UserError, match="the segmenter is closed"):
        segmenter.network_logits(IMAGE)
    assert (segmenter._logits is not None) is logits_open


@pytest.mark.parametrize("options", [{"preprocess": FIXED, "shape": (1, 16, 24)}, {"swapped": True}])
def test_a_refused_segmenter_leaves_no_network_open(
    tmp_path: Path, options: dict[str, object], monkeypatch: pytest.MonkeyPatch
) -> None:
    opened: list[OnnxRuntime] = []
    real = OnnxRuntime.__init__

    def noting(self: OnnxRuntime, *given: object, **named: object) -> None:
        real(self, *given, **named)  # type: ignore[arg-type]
        opened.append(self)

    monkeypatch.setattr(OnnxRuntime, "__init__", noting)
    if options.pop("swapped", False):
        options["edit"] = lambda folder: save_logits(folder / "models/model.mask.onnx", conv_weights())
    with pytest.raises(ArtifactError, match="expected"):
        Segmenter.load(write_artifact(tmp_path / "refused", **options))
    gc.collect()
    assert [runtime._session for runtime in opened] == [None]


@pytest.mark.parametrize(
    "size", [(0, 0), (0, 5), (-1, 5), (5,), (5, 5, 5), (5.0, 5.0), ("5", "5"), 5, "ab", (1 << 20, 1 << 20), ()]
)
def test_a_size_that_no_mask_has_is_refused(artifact: Path, size: object) -> None:
    with (
        Segmenter.load(artifact) as segmenter,
        pytest.raises(UserError, match=r"the size of the mask is .*expected \(height, width\) in pixels"),
    ):
        segmenter(IMAGE, size=size)  # type: ignore[arg-type]


def test_a_size_of_numpys_integers_is_taken(artifact: Path) -> None:
    with Segmenter.load(artifact) as segmenter:
        assert segmenter(IMAGE, size=(np.int64(5), np.uint8(7))).mask.shape == (5, 7)
