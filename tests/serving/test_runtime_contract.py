"""What every runtime promises, whichever engine is behind it."""

from __future__ import annotations

import subprocess
import sys
import threading
from pathlib import Path

import numpy as np
import pytest
from serving_builders import conv_weights, dense_masks, metadata_of, random_images, save_mask

from dropclass_deploy.core.errors import ArtifactError, UserError
from dropclass_deploy.core.preprocess import Preprocess
from dropclass_deploy.serving.runtimes import open_runtime
from dropclass_deploy.serving.runtimes.base import Runtime, TensorSpec, fallback_problem
from dropclass_deploy.serving.runtimes.registry import RUNTIMES

HERE = ["auto", "onnxruntime", "openvino"]
"""Those that a CPU runs; the others need a GPU or bfloat16 instructions, and must say so."""


@pytest.fixture
def mask_file(tmp_path: Path) -> Path:
    return save_mask(tmp_path / "m.onnx", conv_weights(), metadata=metadata_of(Preprocess(), rare=("pole",)))


@pytest.fixture(params=HERE)
def runtime(request: pytest.FixtureRequest, mask_file: Path) -> Runtime:
    return open_runtime(mask_file, request.param, threads=1)


def test_every_registered_runtime_runs_or_says_why_not(mask_file: Path) -> None:
    image = random_images(1)[0]
    for name in RUNTIMES:
        try:
            opened = open_runtime(mask_file, name)
        except UserError as error:
            refusal = str(error)
            assert name not in HERE, refusal
            continue
        assert fallback_problem(opened) is None
        mask = opened.run({"image": image[None]})["mask"][0]
        agreement = (mask == dense_masks([image], conv_weights())[0]).mean()
        assert agreement == 1 if name in HERE else agreement > 0.9  # lower precisions move near ties


def test_signature_metadata_and_precision(runtime: Runtime) -> None:
    assert runtime.inputs == (TensorSpec("image", "uint8", (None, None, None, 3)),)
    assert runtime.outputs == (TensorSpec("mask", "uint8", (None, None, None)),)
    assert runtime.metadata == metadata_of(Preprocess(), rare=("pole",))
    assert runtime.precision == "fp32"
    assert runtime.provider == runtime.requested_provider


def test_many_sizes_and_batches(runtime: Runtime) -> None:
    """More sizes than OpenVINO compiles for, and each of them twice."""
    for size in [(height, 9) for height in range(5, 17)] * 2:
        image = np.random.default_rng(size[0]).integers(0, 256, (*size, 3), dtype=np.uint8)
        mask = runtime.run({"image": np.stack([image, image])})["mask"]
        np.testing.assert_array_equal(mask, np.stack([dense_masks([image], conv_weights())[0]] * 2))


def test_outputs_stay_as_they_were_when_it_runs_again(runtime: Runtime) -> None:
    first, second = random_images(2)
    kept = runtime.run({"image": first[None]})["mask"]
    before = kept.copy()
    runtime.run({"image": second[None]})
    np.testing.assert_array_equal(kept, before)


def test_a_bound_call_leaves_run_alone(runtime: Runtime) -> None:
    image = random_images(1)[0][None]
    before = runtime.run({"image": image})["mask"]
    call = runtime.bind({"image": image})
    call()
    call()
    np.testing.assert_array_equal(runtime.run({"image": image})["mask"], before)


def test_threads_do_not_mix_their_results(runtime: Runtime) -> None:
    images = random_images(6)
    expected = dense_masks(images, conv_weights())
    wrong: list[int] = []

    def work(index: int) -> None:
        for _ in range(15):
            mask = runtime.run({"image": images[index][None]})["mask"][0]
            if not np.array_equal(mask, expected[index]):
                wrong.append(index)

    threads = [threading.Thread(target=work, args=(index,)) for index in range(6)]
    for thread in threads:
        thread.start()
    for thread in threads:
        thread.join()
    assert not wrong


@pytest.mark.parametrize(
    "feeds",
    [
        {"image": np.zeros((1, 4, 4, 3), np.float32)},
        {"image": np.zeros((4, 4, 3), np.uint8)},
        {"image": np.zeros((1, 4, 4, 4), np.uint8)},
        {"picture": np.zeros((1, 4, 4, 3), np.uint8)},
        {},
    ],
)
def test_wrong_input_is_one_line_that_says_what_is_expected(runtime: Runtime, feeds: dict[str, np.ndarray]) -> None:
    with pytest.raises(UserError, match=r"refused.*image uint8 \(\?, \?, \?, 3\)") as caught:
        runtime.run(feeds)
    assert "\n" not in str(caught.value)


def test_a_closed_runtime_refuses_to_run(runtime: Runtime) -> None:
    with runtime:
        pass
    with pytest.raises(UserError, match=r"closed|refused"):
        runtime.run({"image": random_images(1)[0][None]})


@pytest.mark.parametrize("name", HERE)
@pytest.mark.parametrize("content", [b"", b"this is no network", bytes(range(256)) * 8])
def test_a_broken_file_is_one_line(tmp_path: Path, name: str, content: bytes) -> None:
    path = tmp_path / "broken.onnx"
    path.write_bytes(content)
    with pytest.raises(ArtifactError, match=r"broken\.onnx (cannot be loaded|cannot be read)") as caught:
        open_runtime(path, name)
    assert "\n" not in str(caught.value)


@pytest.mark.parametrize("name", HERE)
def test_a_missing_file_and_no_threads_are_refused(mask_file: Path, name: str) -> None:
    with pytest.raises(ArtifactError, match="does not exist"):
        open_runtime(mask_file.parent / "none.onnx", name)
    with pytest.raises(UserError, match="0 threads"):
        open_runtime(mask_file, name, threads=0)


def test_the_garbage_collector_may_take_a_runtime_in_any_order(mask_file: Path) -> None:
    """In a process of its own: a network freed after its engine's core ended the process."""
    script = """
import gc, sys
import numpy as np
from dropclass_deploy.serving.runtimes import open_runtime
for _ in range(8):
    runtime = open_runtime(sys.argv[1], "openvino")
    runtime.run({"image": np.zeros((1, 9, 9, 3), np.uint8)})
    runtime.itself = runtime
    del runtime
    gc.collect()
print("alive")
"""
    result = subprocess.run([sys.executable, "-c", script, str(mask_file)], capture_output=True, text=True, check=False)
    assert (result.returncode, result.stdout.strip()) == (0, "alive"), result.stderr[-500:]
