"""Hostile artifact folders are refused with one clear line, quickly, before anything of theirs is run or followed."""

from __future__ import annotations

import os
import shutil
import time
from collections.abc import Callable
from pathlib import Path

import pytest
from hostile_artifacts import ATTACKS, LOAD, MASK, OPEN, VERIFY, Attack, fewer_classes, forge, sparse
from serving_builders import (
    CLASSES,
    NAMES,
    MemoryDataset,
    conv_weights,
    dense_masks,
    metadata_of,
    noisy,
    random_images,
    write_artifact,
)

from dropclass_deploy.cli.app import run as run_command
from dropclass_deploy.core.errors import ArtifactError, UserError
from dropclass_deploy.data.images import write_png
from dropclass_deploy.serving import BenchOptions, Segmenter, bench, verify
from dropclass_deploy.serving.artifact import open_artifact

IMAGES = random_images(12, (24, 32))
MASKS = dense_masks(IMAGES, conv_weights())
DATA = MemoryDataset(IMAGES, noisy(MASKS))
SECONDS = 2.0
"""Of one refusal; real ones take some milliseconds, and a waiting FIFO or a decoded bomb far more."""


@pytest.fixture(scope="module")
def whole(tmp_path_factory: pytest.TempPathFactory) -> Path:
    """An artifact as good as real, beside the image that it is asked to segment."""

    def rest(folder: Path) -> None:
        from serving_builders import PLAIN, save_logits, save_mask

        known = metadata_of(PLAIN, rare=[NAMES[index] for index in CLASSES.rare])
        save_mask(folder / MASK, conv_weights(), metadata=known)
        save_logits(folder / "models/model.onnx", conv_weights(), metadata=known)
        (folder / "labels.txt").write_text("\n".join(NAMES))

    root = tmp_path_factory.mktemp("hostile")
    write_png(root / "image.png", IMAGES[0])
    for index, (image, label) in enumerate(zip(DATA.images, DATA.masks, strict=True)):
        write_png(root / f"data/images/{index}.png", image)
        write_png(root / f"data/masks/{index}.png", label)
    rows = "".join(f"  - {{name: {name}, value: {index}}}\n" for index, name in enumerate(NAMES))
    (root / "data/classes.yaml").write_text("classes:\n" + rows)
    return write_artifact(root / "whole", references=(DATA, MASKS), edit=rest)


@pytest.fixture
def folder(whole: Path, tmp_path: Path) -> Path:
    return Path(shutil.copytree(whole, tmp_path / "artifact"))


Steps = dict[str, Callable[[Path], object]]


def steps() -> Steps:
    def load(path: Path) -> None:
        Segmenter.load(path).close()

    return {OPEN: open_artifact, LOAD: load, VERIFY: lambda path: verify(path, data=DATA)}


def test_the_untouched_artifact_passes(folder: Path, tmp_path: Path) -> None:
    forge(folder)
    for step in steps().values():
        step(folder)
    assert run_command(["predict", str(folder), str(tmp_path / "artifact/sample/image.png"), "-o", str(tmp_path)]) == 0


@pytest.mark.parametrize("attack", ATTACKS, ids=lambda attack: attack.name)
def test_refused_in_one_line_and_no_time(
    attack: Attack, folder: Path, whole: Path, tmp_path: Path, capfd: pytest.CaptureFixture[str], monkeypatch
) -> None:
    monkeypatch.chdir(tmp_path)
    attack.change(folder)
    reached = False
    for stage, step in steps().items():
        reached = reached or stage == attack.stage
        if reached:
            started = time.perf_counter()
            with pytest.raises(UserError, match=attack.match) as caught:
                step(folder)
            assert time.perf_counter() - started < SECONDS
            assert_one_line(str(caught.value))
    verifying = ["verify", str(folder), "--data", f"folder:{whole.parent / 'data'}", "--split", "all"]
    predicting = ["predict", str(folder), str(whole.parent / "image.png"), "-o", "out"]
    for command in [verifying] if attack.stage == VERIFY else [verifying, predicting]:
        capfd.readouterr()
        started = time.perf_counter()
        assert run_command(command) == 2
        assert time.perf_counter() - started < SECONDS
        lines = capfd.readouterr().err.splitlines()
        assert [line.startswith("dropclass: ") for line in lines].count(True) == 1
        assert_one_line(lines[-1])
        assert not any("Traceback" in line for line in lines)
    assert sorted(path.name for path in tmp_path.iterdir()) == ["artifact"]


def assert_one_line(message: str) -> None:
    assert len(message.splitlines()) == 1
    assert not any(ord(sign) < 32 or sign in "\x7f\x9b\u202e" for sign in message)
    assert len(message) < 3000


def test_what_is_not_listed_is_never_opened(folder: Path) -> None:
    os.mkfifo(folder / "models/model.int8.mask.onnx")
    (folder / "models/model.pt").write_bytes(b"pickle")
    (folder / "conftest.py").write_text("raise SystemExit")
    (folder / "models/model.fp16.onnx").symlink_to("/dev/zero")
    sparse("notes.json")(folder)
    for step in steps().values():
        step(folder)
    assert open_artifact(folder).variants() == (("dense", "fp32"),)


def test_evidence_is_not_written_through_a_link(folder: Path, tmp_path: Path) -> None:
    (tmp_path / "elsewhere").mkdir()
    (folder / "evidence").symlink_to(tmp_path / "elsewhere")
    with pytest.raises(ArtifactError, match=r"evidence is a link.*--evidence of verify, -o of bench"):
        verify(folder, data=DATA)
    with pytest.raises(ArtifactError, match="evidence is a link"):
        bench(folder, options=BenchOptions(queries=1, warmup=0))
    assert not any((tmp_path / "elsewhere").iterdir())
    # Somewhere else by the caller's own choice, the rest works; what a link points to is not believed either.
    (tmp_path / "elsewhere/parity.json").write_text('{"verdict": "pass", "candidate_sha256": "x"}')
    assert verify(folder, data=DATA, evidence=tmp_path / "mine").verdict == "pass"
    report = bench(folder, output=tmp_path / "bench.json", options=BenchOptions(queries=1, warmup=0))
    assert report.parity_verdict is None


def test_a_linked_evidence_file_is_replaced_not_followed(folder: Path, tmp_path: Path) -> None:
    victim = tmp_path / "victim"
    victim.write_text("precious")
    (folder / "evidence").mkdir()
    (folder / "evidence/parity.json").symlink_to(victim)
    verify(folder, data=DATA)
    assert victim.read_text() == "precious"
    assert not (folder / "evidence/parity.json").is_symlink()


@pytest.mark.parametrize("make", [os.mkfifo, Path.mkdir, lambda path: path.write_text("[" * 10**6)])
def test_strange_evidence_proves_nothing(folder: Path, tmp_path: Path, make: Callable[[Path], object]) -> None:
    (folder / "evidence").mkdir()
    make(folder / "evidence/parity.json")
    report = bench(folder, output=tmp_path / "bench.json", options=BenchOptions(queries=1, warmup=0))
    assert report.parity_verdict is None


def test_thousands_of_small_files_are_hashed_in_bounded_time(folder: Path) -> None:
    (folder / "reference/many").mkdir()
    for index in range(3000):
        (folder / f"reference/many/{index}.png").touch()
    forge(folder)
    started = time.perf_counter()
    open_artifact(folder)
    # About 30 µs a file; what looks at all others for each would take a minute.
    assert time.perf_counter() - started < SECONDS


def test_networks_of_more_classes_than_the_manifest_say_so_when_they_run(folder: Path) -> None:
    fewer_classes(folder)
    with Segmenter.load(folder) as segmenter:
        with pytest.raises(ArtifactError, match="class ids from 0 to 3; expected 0 … 2"):
            segmenter(IMAGES[0])
        with pytest.raises(ArtifactError, match="4 logits a pixel; expected 3"):
            segmenter(IMAGES[0], size=(48, 64))
