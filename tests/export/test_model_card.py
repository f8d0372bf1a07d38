from dataclasses import replace

import numpy as np

from dropclass_deploy.core.classes import ClassTable
from dropclass_deploy.core.preprocess import Preprocess
from dropclass_deploy.export.model_card import CardFacts, model_card
from dropclass_deploy.export.options import ExportOptions
from dropclass_deploy.export.sample import SampleCheck
from dropclass_deploy.export.source import Source

CHECK = SampleCheck(np.zeros((2, 2), np.uint8), 0.0, 0.0, 2.5e-6)
FACTS = CardFacts("street", CHECK, 0, ("A note.",))


def result(ious: list[float | None]) -> dict:
    rows = [{"name": name, "iou": iou} for name, iou in zip(("sky", "<b>|x"), ious, strict=True)]
    return {"classes": rows, "miou": 0.5, "rare_miou": None, "pixel_accuracy": 0.75}


def source(networks, **changes) -> Source:
    table = ClassTable(names=("sky", "<b>|x"))
    return Source(networks.Tiny(2), table, Preprocess(), "tiny", **changes)


def test_both_heads_stand_side_by_side(networks) -> None:
    heads = {"plain": result([0.9125, None]), "folded": result([0.25, 0.5])}
    evaluation = {"data": "synthetic:", "split": "val", "images": 60, "heads": heads}
    card = model_card(source(networks, evaluation=evaluation), ExportOptions(), FACTS)
    assert "| IoU | plain | folded |" in card
    assert "| sky | 91.25 | 25.00 |" in card
    assert "| rare mIoU | – | – |" in card
    assert "synthetic:, split val, 60 images" in card


def test_what_was_not_measured_is_said(networks) -> None:
    card = model_card(source(networks), ExportOptions(), FACTS)
    assert "Accuracy was not measured." in card
    assert "Parity of the float32 files class by class was not measured at export time." in card
    assert "Latency was not measured" in card
    assert "- A note." in card


def test_names_cannot_break_the_table(networks) -> None:
    card = model_card(source(networks), ExportOptions(), FACTS)
    assert "\\<b\\>\\|x" in card
    assert "<b>" not in card


WARNING = "Measured at the images' own size; the artifact resizes to 24×32, which was not measured."


def test_an_imposed_size_says_that_it_was_not_measured(networks) -> None:
    evaluation = {"data": "synthetic:", "split": "val", "images": 60, "heads": {"plain": result([0.5, 0.5])}}
    measured = source(networks, evaluation=evaluation)
    imposed = model_card(measured, ExportOptions(), replace(FACTS, imposed_size=(24, 32)))
    assert WARNING in imposed.split("## Measured before export")[1].split("\n## ")[0]
    assert "own size; the artifact" not in model_card(measured, ExportOptions(), FACTS)
