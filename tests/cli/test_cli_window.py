"""``export --window`` and what the other commands make of such an artifact."""

from __future__ import annotations

import json
from pathlib import Path

import numpy as np
import pytest
from cli_data import DATA
from PIL import Image


@pytest.fixture(scope="module")
def windowed(trained: Path, tmp_path_factory: pytest.TempPathFactory) -> Path:
    from dropclass_deploy.cli.app import run

    folder = tmp_path_factory.mktemp("windowed") / "artifact"
    window = ["--window", "32x32", "--overlap", "0.5", "--blend", "gaussian", "--shape", "1x32x32"]
    assert run(["export", str(trained), "-o", str(folder), *window]) == 0
    return folder


def test_the_window_stands_in_the_specification(windowed: Path) -> None:
    assert json.loads((windowed / "preprocess.json").read_text())["window"] == {
        "height": 32,
        "width": 32,
        "overlap": 0.5,
        "blending": "gaussian",
        "padding": "constant",
    }


def test_verify_compares_windows_with_windows(dropclass, windowed: Path) -> None:
    result = dropclass("verify", windowed, "--data", DATA, "--json")
    # Four training steps leave classes that no image shows: not enough to judge, but nothing differs.
    assert result.code in (0, 3)
    content = json.loads(result.out)
    assert content["verdict"] != "fail"
    assert content["pixel_disagreement"] <= 1e-4


def test_predict_and_evaluate_take_images_of_any_size(dropclass, windowed: Path, tmp_path: Path) -> None:
    pixels = np.random.default_rng(0).integers(0, 256, (50, 71, 3), dtype=np.uint8)
    Image.fromarray(pixels).save(tmp_path / "large.png")
    assert dropclass("predict", windowed, tmp_path / "large.png", "-o", tmp_path / "masks").code == 0
    with Image.open(tmp_path / "masks/large.png") as mask:
        assert mask.size == (71, 50)
    assert dropclass("evaluate", windowed, "--data", DATA, "--json").code == 0


def test_bench_leaves_out_peers_that_know_no_windows(dropclass, windowed: Path, tmp_path: Path) -> None:
    output = tmp_path / "bench.json"
    result = dropclass("bench", windowed, "--data", DATA, "--queries", "3", "--warmup", "1", "-o", output)
    assert result.code == 0
    assert "its peers cannot" in result.err
    found = {row["scope"]: (row["contender"], row["resolution"]) for row in json.loads(output.read_text())["results"]}
    assert found == {"model": ("ours", [32, 32]), "transfer": ("ours", [32, 32]), "end_to_end": ("ours", [32, 48])}


@pytest.mark.parametrize(
    ("arguments", "message"),
    [
        (["--overlap", "0.5"], "--overlap or --blend is given without --window"),
        (["--blend", "gaussian"], "--overlap or --blend is given without --window"),
        (["--window", "32"], "'32' is no size; expected HEIGHTxWIDTH"),
        (["--window", "0x32"], "makes no window: Value error, a window is height and width"),
        (["--window", "32x32", "--overlap", "1"], "share from 0 to below 1"),
        (["--window", "32x32", "--blend", "cosine"], "blending: Input should be 'constant' or 'gaussian'"),
        (["--window", "32x32", "--shape", "1x32x48"], "fixes 32×48 but the window is 32×32"),
    ],
)
def test_impossible_windows(dropclass, trained: Path, tmp_path: Path, arguments: list[str], message: str) -> None:
    assert message in dropclass("export", trained, "-o", tmp_path / "out", *arguments).mistake()
    assert not (tmp_path / "out").exists()
