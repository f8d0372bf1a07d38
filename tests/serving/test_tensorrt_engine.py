"""The native TensorRT runtime: what it refuses before anything runs, and how it handles memory and streams."""

from __future__ import annotations

import gc
import hashlib
import json
import os
import shutil
import sys
import threading
from collections.abc import Callable
from pathlib import Path

import numpy as np
import pytest
from host_gpu import HostCuda, host_tensorrt
from serving_builders import MemoryDataset, conv_weights, dense_masks, random_images, write_artifact

from dropclass_deploy.core.errors import ArtifactError, DropclassError, MissingExtraError, UserError
from dropclass_deploy.core.files import sha256_of
from dropclass_deploy.serving import Segmenter, verify
from dropclass_deploy.serving.runtimes import open_runtime
from dropclass_deploy.serving.runtimes.base import TensorSpec
from dropclass_deploy.serving.runtimes.onnx_file.graph_io import read_graph_io
from dropclass_deploy.serving.runtimes.tensorrt_native.built_here import remember
from dropclass_deploy.serving.runtimes.tensorrt_native.cuda_memory import Buffer, Cuda
from dropclass_deploy.serving.runtimes.tensorrt_native.engine_choice import choose_engine
from dropclass_deploy.serving.runtimes.tensorrt_native.engine_record import (
    LARGEST_SIDECAR,
    read_record,
    record_path,
)
from dropclass_deploy.serving.runtimes.tensorrt_native.tensorrt_engine import TensorRTEngine
from dropclass_deploy.serving.runtimes.tensorrt_native.tensorrt_library import import_tensorrt

rtx = pytest.importorskip("tensorrt_rtx", reason="needs tensorrt-rtx, which builds without a GPU")
NAME = "evidence/engines/fp32.tensorrt-rtx.sm89.1x24x32-2x24x32-2x24x32.plan"
NETWORK = "models/model.mask.onnx"


def has_gpu() -> bool:
    try:
        return bool(Cuda().compute_capability())
    except DropclassError:
        return False


without_gpu = pytest.mark.skipif(has_gpu(), reason="this machine has a GPU: it says nothing of one without")


@pytest.fixture(scope="session")
def built(tmp_path_factory: pytest.TempPathFactory) -> Path:
    """An artifact with a real plan for compute capability 8.9. Copy before changing."""
    from dropclass_deploy.export.engines import EngineOptions, build_engine

    folder = write_artifact(tmp_path_factory.mktemp("engine") / "street")
    build_engine(folder, EngineOptions("tensorrt-rtx", compute_capabilities=("8.9",), shape=(2, 24, 32)))
    return folder


@pytest.fixture
def artifact(built: Path, tmp_path: Path) -> Path:
    return shutil.copytree(built, tmp_path / "street")


def edit_request(plan: Path, **changes: object) -> None:
    content = json.loads(record_path(plan).read_text())
    content["request"] |= changes
    record_path(plan).write_text(json.dumps(content))


@without_gpu
@pytest.mark.parametrize("name", [NETWORK, NAME])
def test_without_a_gpu_one_line_says_so(artifact: Path, name: str) -> None:
    with pytest.raises(UserError, match=r"no NVIDIA GPU answers: CUDA driver.*--runtime onnxruntime") as caught:
        open_runtime(artifact / name, "tensorrt")
    assert "\n" not in str(caught.value)


def test_a_whole_engine_is_chosen(artifact: Path) -> None:
    for name in (NETWORK, NAME):
        engine = choose_engine(artifact / name)
        assert engine.plan == (artifact / NAME).read_bytes()
        assert (engine.library.flavour, engine.library.version) == ("tensorrt-rtx", rtx.__version__)
        assert engine.record.request.onnx_sha256 == sha256_of(artifact / NETWORK)


def flip(plan: Path) -> None:
    content = bytearray(plan.read_bytes())
    content[-9] ^= 4
    plan.write_bytes(content)


def instead(path: Path, make: Callable[[Path], object]) -> None:
    path.unlink()
    make(path)


def forge(plan: Path) -> None:
    """What a foreign artifact may bring: a plan of its own, and a sidecar that vouches for it."""
    flip(plan)
    content = json.loads(record_path(plan).read_text())
    record_path(plan).write_text(json.dumps(content | {"plan_sha256": sha256_of(plan)}))


REFUSALS = {
    "changed": (flip, r"not the plan that was built \(sha256\)"),
    "truncated": (lambda plan: plan.write_bytes(plan.read_bytes()[:1000]), r"not the plan that was built \(sha256\)"),
    "empty": (lambda plan: plan.write_bytes(b""), r"not the plan that was built \(sha256\)"),
    "no sidecar": (
        lambda plan: record_path(plan).unlink(),
        r"has no sidecar fp32\.tensorrt-rtx\.sm89\.\S+\.plan\.json",
    ),
    "broken sidecar": (lambda plan: record_path(plan).write_text("{"), "cannot be read as an engine's sidecar"),
    "huge sidecar": (
        lambda plan: record_path(plan).write_bytes(b" " * (LARGEST_SIDECAR + 1)),
        "more than the 1 MiB allowed",
    ),
    "FIFO as sidecar": (lambda plan: instead(record_path(plan), os.mkfifo), "sidecar: it is no regular file"),
    "linked sidecar": (
        lambda plan: instead(record_path(plan), lambda path: path.symlink_to("/dev/zero")),
        "sidecar: it is a link",
    ),
    "FIFO as plan": (lambda plan: instead(plan, os.mkfifo), "cannot be read: it is no regular file"),
    "linked plan": (
        lambda plan: instead(plan, lambda path: path.symlink_to("/dev/zero")),
        "cannot be read: it is a link",
    ),
    "forged plan and sidecar": (lambda plan: forge(plan), "was not built by you on this machine"),
    "forged field": (lambda plan: edit_request(plan, trusted=True), "cannot be read as an engine's sidecar"),
    "forged hash": (lambda plan: edit_request(plan, onnx_sha256="1" * 64), "was built from another models/model"),
    "other version": (
        lambda plan: edit_request(plan, library_version="1.6.0.1"),
        r"by tensorrt-rtx 1\.6\.0\.1 and 1\.7",
    ),
    "other GPU": (
        lambda plan: edit_request(plan, compute_capabilities=["12.0"]),
        r"capability 12\.0, and this one has 8\.9",
    ),
}


@pytest.mark.parametrize("case", REFUSALS)
@pytest.mark.parametrize("name", [NETWORK, NAME])
def test_refused_before_anything_is_deserialised(
    artifact: Path, name: str, case: str, monkeypatch: pytest.MonkeyPatch
) -> None:
    def never(*_: object) -> None:
        pytest.fail("a plan that does not fit reached TensorRT")

    spoil, message = REFUSALS[case]
    spoil(artifact / NAME)
    monkeypatch.setitem(sys.modules, "cuda.bindings.runtime", HostCuda())
    monkeypatch.setattr(rtx, "Runtime", never)
    with pytest.raises(ArtifactError, match=f"{message}.*dropclass engine") as caught:
        TensorRTEngine(artifact / name)
    assert "\n" not in str(caught.value)


def test_a_changed_network_is_refused(artifact: Path) -> None:
    with (artifact / NETWORK).open("ab") as stream:
        stream.write(b"\x00")
    for name in (NETWORK, NAME):
        with pytest.raises(ArtifactError, match=r"was built from another models/model\.mask\.onnx"):
            choose_engine(artifact / name)


@pytest.mark.parametrize("named", ["models/other.mask.onnx", "../../secret.onnx", "/etc/hostname", ""])
def test_a_plan_in_an_artifact_belongs_to_one_of_its_files(artifact: Path, named: str) -> None:
    edit_request(artifact / NAME, onnx=named)
    with pytest.raises(ArtifactError, match="does not have"):
        choose_engine(artifact / NAME)


def test_a_plan_elsewhere_is_what_its_sidecar_says(artifact: Path, tmp_path: Path) -> None:
    away = tmp_path / "away"
    shutil.copytree(artifact / "evidence/engines", away)
    assert choose_engine(away / Path(NAME).name).plan == (artifact / NAME).read_bytes()
    flip(away / Path(NAME).name)
    with pytest.raises(ArtifactError, match="sha256"):
        choose_engine(away / Path(NAME).name)


def test_no_plan_says_how_to_build_one(artifact: Path) -> None:
    shutil.rmtree(artifact / "evidence")
    with pytest.raises(ArtifactError, match=rf"holds none for it.*dropclass engine {artifact}"):
        choose_engine(artifact / NETWORK)
    with pytest.raises(ArtifactError, match="has no sidecar"):
        choose_engine(artifact / NAME)


def test_files_that_get_no_engine(artifact: Path) -> None:
    with pytest.raises(ArtifactError, match="built from mask files only"):
        choose_engine(artifact / "models/model.onnx")
    with pytest.raises(ArtifactError, match="does not exist"):
        choose_engine(artifact / "models/gone.mask.onnx")


def test_the_plan_for_this_gpu_is_taken(artifact: Path) -> None:
    other = artifact / "evidence/engines" / "fp32.tensorrt-rtx.sm120.plan"
    shutil.copy(artifact / NAME, other)
    shutil.copy(record_path(artifact / NAME), record_path(other))
    edit_request(other, compute_capabilities=["12.0"])
    assert remember(read_record(other))
    for capability in ("8.9", "12.0"):
        found = choose_engine(artifact / NETWORK, capability=capability)
        assert found.record.request.compute_capabilities == (capability,)


@pytest.mark.parametrize(
    ("flavour", "message"),
    [
        ("tensorrt", r"'tensorrt'.*--extra-index-url https://pypi\.nvidia\.com 'dropclass-deploy\[tensorrt\]'"),
        ("tensorrt-rtx", r"'tensorrt_rtx'.*pip install 'dropclass-deploy\[tensorrt-rtx\]'"),
    ],
)
def test_a_missing_library_names_the_extra_and_the_index(
    flavour: str, message: str, monkeypatch: pytest.MonkeyPatch
) -> None:
    monkeypatch.setitem(sys.modules, flavour.replace("-", "_"), None)
    with pytest.raises(MissingExtraError, match=message):
        import_tensorrt(flavour)


@pytest.mark.parametrize(
    ("asked", "installed", "message"),
    [
        ("auto", ["tensorrt_rtx"], r"install 'dropclass-deploy\[tensorrt-rtx\]'"),
        ("auto", [], r"install 'dropclass-deploy\[tensorrt-rtx\]'"),
        ("auto", ["tensorrt"], r"--extra-index-url https://pypi\.nvidia\.com 'dropclass-deploy\[tensorrt\]'"),
        ("tensorrt", ["tensorrt_rtx"], r"'dropclass-deploy\[tensorrt\]'"),
        ("tensorrt-rtx", ["tensorrt"], r"'dropclass-deploy\[tensorrt-rtx\]'"),
    ],
)
def test_missing_cuda_bindings_name_the_extra_of_the_tensorrt_that_is_there(
    asked: str, installed: list[str], message: str, monkeypatch: pytest.MonkeyPatch, tmp_path: Path
) -> None:
    monkeypatch.setitem(sys.modules, "cuda.bindings.runtime", None)
    for name in ("tensorrt", "tensorrt_rtx"):
        monkeypatch.delitem(sys.modules, name, raising=False)
        if name in installed:
            (tmp_path / f"{name}.py").write_text("raise AssertionError('nobody imports it')")
    monkeypatch.setattr(sys, "path", [str(tmp_path)])
    with pytest.raises(MissingExtraError, match=f"'cuda-bindings'.*{message}"):
        Cuda(asked)


def test_an_old_library_is_refused(monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.setitem(sys.modules, "tensorrt", host_tensorrt(HostCuda(), "10.9.0.34"))
    with pytest.raises(UserError, match=r"tensorrt 10\.9\.0\.34 is installed; expected version 10\.12 or newer"):
        import_tensorrt("tensorrt")


@without_gpu
@pytest.mark.parametrize(
    "call",
    [
        lambda cuda: cuda.compute_capability(),
        lambda cuda: cuda.new_stream(),
        lambda cuda: Buffer(cuda).reserve(64),
        lambda cuda: cuda.call("cudaMallocHost", 64),
        lambda cuda: cuda.upload(4096, 8192, 16, 0),
        lambda cuda: cuda.download(4096, 8192, 16, 0),
        lambda cuda: cuda.synchronise(0),
        lambda cuda: cuda.capture(0, lambda: True),
        lambda cuda: cuda.launch(0, 0),
    ],
)
def test_the_real_bindings_take_our_arguments_and_tell_of_the_missing_driver(call) -> None:
    """A wrong argument would be a TypeError; the status that comes back is CUDA's own."""
    with pytest.raises(UserError, match="no NVIDIA GPU answers: CUDA driver version is insufficient"):
        call(Cuda())


@pytest.fixture
def gpu(monkeypatch: pytest.MonkeyPatch) -> HostCuda:
    cuda = HostCuda()
    monkeypatch.setitem(sys.modules, "cuda.bindings.runtime", cuda)
    monkeypatch.setitem(sys.modules, "tensorrt_rtx", host_tensorrt(cuda, rtx.__version__))
    return cuda


def pictures(count: int = 1, size: tuple[int, int] = (24, 32), seed: int = 4) -> np.ndarray:
    return np.stack(random_images(count, size, seed))


def test_specs_precision_and_metadata_are_those_of_the_network(artifact: Path, gpu: HostCuda) -> None:
    with open_runtime(artifact / NETWORK, "tensorrt") as runtime:
        assert runtime.inputs == (TensorSpec("image", "uint8", (None, None, None, 3)),)
        assert runtime.outputs == (TensorSpec("mask", "uint8", (None, None, None)),)
        assert (runtime.name, runtime.provider, runtime.precision) == ("tensorrt", "tensorrt-rtx", "fp32")
        assert runtime.metadata == read_graph_io(artifact / NETWORK).metadata != {}


def test_the_gate_holds_a_plan_against_its_network(built: Path, artifact: Path, gpu: HostCuda) -> None:
    """The plan's own runtime is found by its name; that GPU computes another network, and the gate says so."""
    images = random_images(12, seed=11)
    dataset = MemoryDataset(images, dense_masks(images, conv_weights()))
    report = verify(data=dataset, reference=artifact / NETWORK, candidate=artifact / NAME)
    assert report.to_json()["provider"] == "tensorrt-rtx"
    assert report.verdict == "fail"
    assert report.to_json()["pixel_disagreement"] > 0.1
    assert not any("not built from" in note for note in report.to_json()["notes"])
    other = write_artifact(artifact.parent / "other", weights=conv_weights(seed=5)) / NETWORK
    (note,) = [
        note
        for note in verify(data=dataset, reference=other, candidate=artifact / NAME).to_json()["notes"]
        if "not built from" in note
    ]
    assert sha256_of(artifact / NETWORK)[:12] in note
    same = verify(data=dataset, reference=artifact / NAME, candidate=artifact / NAME)
    assert same.to_json()["pixel_disagreement"] == 0
    assert gpu.left() == 0


def test_the_segmenter_runs_on_an_engine(artifact: Path, gpu: HostCuda) -> None:
    image = random_images(1, seed=12)[0]
    with Segmenter.load(artifact, runtime="tensorrt") as segmenter:
        np.testing.assert_array_equal(segmenter(image).mask, image.argmax(-1))
        assert segmenter.provider == "tensorrt-rtx"
        with pytest.raises(UserError, match=r"48×48 pixels.*outside the engine's profile"):
            segmenter(random_images(1, (48, 48))[0])


def test_runs_and_gives_all_memory_back(artifact: Path, gpu: HostCuda) -> None:
    with open_runtime(artifact / NETWORK, "tensorrt") as runtime:
        for images in (pictures(1), pictures(2, seed=5), pictures(1, seed=6)):
            np.testing.assert_array_equal(runtime.run({"image": images})["mask"], images.argmax(-1))
        assert gpu.left() > 0
    assert gpu.left() == 0


def test_results_belong_to_the_caller(artifact: Path, gpu: HostCuda) -> None:
    first, second = pictures(1), pictures(1, seed=8)
    with open_runtime(artifact / NETWORK, "tensorrt") as runtime:
        mask = runtime.run({"image": first})["mask"]
        runtime.run({"image": second})
    np.testing.assert_array_equal(mask, first.argmax(-1))


def test_strided_images(artifact: Path, gpu: HostCuda) -> None:
    images = pictures(1, (24, 64))[:, :, ::2]
    with open_runtime(artifact / NETWORK, "tensorrt") as runtime:
        np.testing.assert_array_equal(runtime.run({"image": images})["mask"], images.argmax(-1))


def test_a_bound_call_is_one_graph_launch_and_leaves_run_alone(artifact: Path, gpu: HostCuda) -> None:
    bound_image, other = pictures(1), pictures(2, seed=9)
    with open_runtime(artifact / NETWORK, "tensorrt") as runtime:
        call = runtime.bind({"image": bound_image})
        gpu.log.clear()
        call()
        call()
        assert gpu.log == ["cudaGraphLaunch", "cudaStreamSynchronize"] * 2
        np.testing.assert_array_equal(runtime.run({"image": other})["mask"], other.argmax(-1))
        written = [bytes(block) for block in gpu.memory["device"].values()]
        assert bound_image.argmax(-1).astype(np.uint8).tobytes() in written
    with pytest.raises(UserError, match="closed"):
        call()
    assert gpu.left() == 0


def test_a_stream_that_cannot_be_captured_runs_without_a_graph(
    artifact: Path, gpu: HostCuda, monkeypatch: pytest.MonkeyPatch
) -> None:
    monkeypatch.setitem(sys.modules, "tensorrt_rtx", host_tensorrt(gpu, rtx.__version__, capturable=False))
    with open_runtime(artifact / NETWORK, "tensorrt") as runtime:
        call = runtime.bind({"image": pictures(1)})
        gpu.log.clear()
        call()
        assert gpu.log == ["cudaStreamSynchronize"]
    assert gpu.left() == 0


def test_a_bound_call_that_is_let_go_gives_its_memory_back(artifact: Path, gpu: HostCuda) -> None:
    with open_runtime(artifact / NETWORK, "tensorrt") as runtime:
        before = gpu.left()
        call = runtime.bind({"image": pictures(1)})
        assert gpu.left() > before
        del call
        gc.collect()
        assert gpu.left() == before


def test_several_threads_get_their_own_masks(artifact: Path, gpu: HostCuda) -> None:
    wrong: list[int] = []

    def work(seed: int) -> None:
        images = pictures(1 + seed % 2, seed=seed)
        masks = [runtime.run({"image": images})["mask"] for _ in range(20)]
        wrong.extend(seed for mask in masks if not np.array_equal(mask, images.argmax(-1)))

    with open_runtime(artifact / NETWORK, "tensorrt") as runtime:
        threads = [threading.Thread(target=work, args=(seed,)) for seed in range(6)]
        for thread in threads:
            thread.start()
        for thread in threads:
            thread.join()
    assert wrong == []


@pytest.mark.parametrize(
    "feeds",
    [
        {"image": np.zeros((1, 24, 32, 3), np.float32)},
        {"image": np.zeros((24, 32, 3), np.uint8)},
        {"image": np.zeros((1, 24, 32, 4), np.uint8)},
        {"picture": np.zeros((1, 24, 32, 3), np.uint8)},
        {},
        {"image": np.zeros((3, 24, 32, 3), np.uint8)},
        {"image": np.zeros((1, 24, 33, 3), np.uint8)},
        {"image": np.zeros((0, 24, 32, 3), np.uint8)},
    ],
)
def test_wrong_input_is_one_line_that_says_what_is_expected(
    artifact: Path, gpu: HostCuda, feeds: dict[str, np.ndarray]
) -> None:
    wanted = r"TensorRT refused the input: .*expected image uint8 \(\?, \?, \?, 3\)"
    with open_runtime(artifact / NETWORK, "tensorrt") as runtime:
        for use in (runtime.run, runtime.bind):
            with pytest.raises(UserError, match=wanted) as caught:
                use(feeds)
            assert "\n" not in str(caught.value)


@pytest.mark.parametrize("shape", [(3, 24, 32, 3), (1, 24, 33, 3), (0, 24, 32, 3)])
def test_a_shape_outside_the_profile_names_its_ends(artifact: Path, gpu: HostCuda, shape: tuple[int, ...]) -> None:
    wanted = r"outside the engine's profile.*with \(N, H, W\) from \(1, 24, 32\) to \(2, 24, 32\)"
    with open_runtime(artifact / NETWORK, "tensorrt") as runtime, pytest.raises(UserError, match=wanted):
        runtime.run({"image": np.zeros(shape, np.uint8)})


def test_closed_runtime_refuses(artifact: Path, gpu: HostCuda) -> None:
    runtime = open_runtime(artifact / NETWORK, "tensorrt")
    runtime.close()
    runtime.close()
    for use in (runtime.run, runtime.bind):
        with pytest.raises(UserError, match="closed"):
            use({"image": pictures(1)})


def test_a_plan_of_other_tensors_than_the_sidecars_is_refused(
    artifact: Path, gpu: HostCuda, monkeypatch: pytest.MonkeyPatch
) -> None:
    monkeypatch.setitem(sys.modules, "tensorrt_rtx", host_tensorrt(gpu, rtx.__version__, dtype="FLOAT"))
    with pytest.raises(ArtifactError, match=r"has image float32.*expected image uint8.*as its sidecar says"):
        open_runtime(artifact / NETWORK, "tensorrt")


@without_gpu
def test_a_plan_that_the_library_itself_cannot_load(artifact: Path, monkeypatch: pytest.MonkeyPatch) -> None:
    """The real TensorRT, a CUDA that claims a GPU, and bytes that are no plan under a sidecar that says they are."""
    junk = b"no plan at all" * 20
    (artifact / NAME).write_bytes(junk)
    content = json.loads(record_path(artifact / NAME).read_text())
    record_path(artifact / NAME).write_text(json.dumps(content | {"plan_sha256": hashlib.sha256(junk).hexdigest()}))
    assert remember(read_record(artifact / NAME))
    monkeypatch.setitem(sys.modules, "cuda.bindings.runtime", HostCuda())
    with pytest.raises(ArtifactError, match=r"TensorRT cannot load the engine: .*[Ss]erialization") as caught:
        TensorRTEngine(artifact / NAME)
    assert "\n" not in str(caught.value)


def test_the_record_survives_the_disk(artifact: Path) -> None:
    record = read_record(artifact / NAME)
    assert type(record).model_validate_json(record.model_dump_json()) == record
