"""Every recipe that ships takes two steps on data of its own format: classes, components, networks and schedules fit."""

from __future__ import annotations

import json
from pathlib import Path

import numpy as np
import pytest
from PIL import Image
from rounds import first_of

from dropclass_deploy.core.progress import Silent
from dropclass_deploy.training import load_recipe, train

RECIPES = Path(__file__).parents[2] / "recipes"
SIZE = (72, 104)
CITYSCAPES_IDS = (7, 8, 11, 12, 13, 17, 19, 20, 21, 22, 23, 24, 25, 26, 27, 28, 31, 32, 33, 0)
"""Label ids of the 19 classes, and one that is ignored."""

# What they have in common is in their bases, which nobody trains by itself.
BASES = {"hrnet", "deeplabv3", "hrnet_on_cityscapes", "hrnet_on_voc", "deeplabv3_on_cityscapes", "deeplabv3_on_voc"}
SHIPPED = sorted(
    path.relative_to(RECIPES).with_suffix("").as_posix()
    for path in RECIPES.rglob("*.yaml")
    if path.stem not in BASES and not path.name.endswith(".classes.yaml")
)


def put(path: Path, values: np.ndarray) -> None:
    path.parent.mkdir(parents=True, exist_ok=True)
    Image.fromarray(values).save(path)


def scene(ids: tuple[int, ...], seed: int) -> tuple[np.ndarray, np.ndarray]:
    """An image of noise, and a mask that shows every raw value in blocks."""
    generator = np.random.default_rng(seed)
    blocks = generator.permutation(np.resize(np.array(ids, np.uint8), 9 * 13)).reshape(9, 13)
    return generator.integers(0, 256, (*SIZE, 3), dtype=np.uint8), blocks.repeat(8, axis=0).repeat(8, axis=1)


@pytest.fixture(scope="module")
def data(tmp_path_factory: pytest.TempPathFactory) -> dict[str, str]:
    """Format → FORMAT:PATH of three training images and one for validation."""
    root = tmp_path_factory.mktemp("data")
    for split, count in (("train", 3), ("val", 1)):
        for number in range(count):
            seed = number + 10 * (split == "val")
            image, mask = scene(tuple(range(12)), seed)
            put(root / "camvid" / split / f"f{number}.png", image)
            put(root / "camvid" / f"{split}annot" / f"f{number}.png", mask)
            image, mask = scene(CITYSCAPES_IDS, seed)
            frame = f"{split}/aachen/aachen_{number:06d}_000019"
            put(root / "cityscapes" / "leftImg8bit" / f"{frame}_leftImg8bit.png", image)
            put(root / "cityscapes" / "gtFine" / f"{frame}_gtFine_labelIds.png", mask)
            image, mask = scene((*range(21), 255), seed)
            stem, year = f"2007_{seed:06d}", root / "voc" / "VOC2012"
            put(year / "JPEGImages" / f"{stem}.jpg", image)
            put(year / "SegmentationClass" / f"{stem}.png", mask)
            for listed in (split, "trainaug") if split == "train" else (split,):
                with (_made(year / "ImageSets" / "Segmentation" / f"{listed}.txt")).open("a") as names:
                    names.write(f"{stem}\n")
            image, mask = scene((0, 128, 255), seed)
            name = f"{number + 1 if split == 'train' else 241:03d}.png"
            put(root / "folder" / "images" / name, image)
            put(root / "folder" / "masks" / name, mask)
    classes = (RECIPES / "wbc.classes.yaml").read_text(encoding="utf-8")
    # Of its 300 images there are four here.
    (root / "folder" / "classes.yaml").write_text(classes.replace("001..240", "001..003").replace("241..300", "241"))
    names = {
        "camvid": root / "camvid",
        "cityscapes": root / "cityscapes",
        "voc": root / "voc",
        "folder": root / "folder",
    }
    return {name: f"{name}:{path}" for name, path in names.items()} | {
        "synthetic": "synthetic:size=64x96,train=3,val=1"
    }


def _made(path: Path) -> Path:
    path.parent.mkdir(parents=True, exist_ok=True)
    return path


@pytest.mark.parametrize("name", first_of(SHIPPED))
def test_a_recipe_trains(name: str, data: dict[str, str], tmp_path: Path) -> None:
    path = RECIPES / f"{name}.yaml"
    spec = data[load_recipe(path).data.partition(":")[0]]
    small = ["model.weights=null", "train.steps=2", "train.batch_size=2", "train.crop=[64, 64]", "train.workers=0"]
    small += ["train.validate_every=2", "train.checkpoint_every=2", "train.log_every=1", "train.device=cpu"]
    recipe = load_recipe(path, [f"data={json.dumps(spec)}", *small])
    train(recipe, tmp_path / "run", reporter=Silent())
    lines = [json.loads(line) for line in (tmp_path / "run" / "metrics.jsonl").read_text().splitlines()]
    steps = [line for line in lines if line.get("kind") == "train" or "ce" in line]
    assert [line["step"] for line in steps][-1] == 2
    assert all(np.isfinite(value) for line in steps for value in line.values() if isinstance(value, float))
    assert json.loads((tmp_path / "run" / "evaluation.json").read_text())["images"] == 1


def test_every_experiment_of_the_paper_is_there() -> None:
    paper = {name for name in SHIPPED if name.startswith("paper/")}
    networks = {"hrnetv1", "hrnetv2", "deeplabv3"}
    for data_set in ("cityscapes", "voc"):
        for network in networks:
            assert {f"paper/{data_set}_{network}_{method}" for method in ("ce", "dropclass")} <= paper
    assert len(paper) == 18
