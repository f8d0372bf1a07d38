"""The bias card as a whole: its files, its figures, and what is refused."""

from __future__ import annotations

import json
import re
from html import unescape
from pathlib import Path
from typing import Any

import numpy as np
import pytest
from browser import visit
from rounds import first_of
from tiny_runs import DATA, write_run

from dropclass_deploy.analysis.bias_card import AnalysisOptions, analyse
from dropclass_deploy.analysis.bias_card.options import spread
from dropclass_deploy.analysis.bias_card.page import SECTIONS, render
from dropclass_deploy.core.errors import UserError
from dropclass_deploy.data.registry import open_dataset
from dropclass_deploy.models.digest import network_digest
from dropclass_deploy.training import evaluate_network, load_run

STREET = open_dataset(DATA, "val")
HOSTILE = '<img src=x onerror="alert(1)">'


class Told:
    """A reporter that keeps its notes."""

    def __init__(self) -> None:
        self.notes: list[str] = []

    def note(self, text: str) -> None:
        self.notes.append(text)

    def phase(self, title: str) -> Any:
        from dropclass_deploy.core.progress import Silent

        return Silent().phase(title)


@pytest.fixture(scope="module")
def two(tmp_path_factory: pytest.TempPathFactory) -> tuple[Path, list[Path], Told]:
    """The card of two networks, and the runs."""
    root = tmp_path_factory.mktemp("two")
    runs = [write_run(root / "plain"), write_run(root / "dropped", method="dropclass", seed=1)]
    told = Told()
    analyse(runs, STREET, root / "card", reporter=told)
    return root / "card", runs, told


@pytest.fixture(scope="module")
def one(tmp_path_factory: pytest.TempPathFactory) -> Path:
    root = tmp_path_factory.mktemp("one")
    analyse([write_run(root / "run")], STREET, root / "card", options=AnalysisOptions(limit=3))
    return root / "card"


def figures_of(card: Path) -> dict[str, Any]:
    content: dict[str, Any] = json.loads((card / "analysis.json").read_text(encoding="utf-8"))
    return content


def test_the_card_has_every_part_and_every_picture_that_it_names(two: tuple[Path, list[Path], Told]) -> None:
    card, _, _ = two
    content = figures_of(card)
    assert set(SECTIONS) <= set(content)
    named = set(re.findall(r'"([\w/.-]+\.(?:png|svg))"', json.dumps(content)))
    written = {path.relative_to(card).as_posix() for path in card.rglob("*") if path.suffix in {".png", ".svg"}}
    assert named == written
    assert {path.name for path in card.iterdir() if path.is_file()} == {"index.html", "analysis.json"}


def test_the_networks_figures_are_those_of_an_evaluation(two: tuple[Path, list[Path], Told]) -> None:
    card, runs, _ = two
    for path, found in zip(runs, figures_of(card)["runs"], strict=True):
        run = load_run(path)
        expected = evaluate_network(run.network(), STREET, run.preprocess, rare=run.classes.rare)
        assert found["miou"] == pytest.approx(expected.miou, abs=1e-12)
        assert found["rare_miou"] == pytest.approx(expected.rare_miou, abs=1e-12)
        assert found["network_sha256"] == network_digest(run.network())


def test_every_part_speaks_of_the_same_images(two: tuple[Path, list[Path], Told]) -> None:
    card, runs, _ = two
    content, run = figures_of(card), load_run(runs[0])
    expected = evaluate_network(run.network(), STREET, run.preprocess)
    baseline = [np.nan if value is None else value for value in content["co_location"]["baseline_iou"]]
    np.testing.assert_allclose(baseline, expected.iou, atol=1e-12)
    labelled = sum(int((STREET.mask(index) != 255).sum()) for index in range(len(STREET)))
    assert sum(row["pixels"] for row in content["calibration"]["runs"][0]["classes"]) == labelled


def test_the_time_is_told_before_it_passes(two: tuple[Path, list[Path], Told]) -> None:
    _, _, told = two
    assert "the co-location audit takes" in told.notes[0]
    assert sum("more images with a class erased" in note for note in told.notes) == 2


def test_the_page_stands_alone(two: tuple[Path, list[Path], Told]) -> None:
    page = (two[0] / "index.html").read_text(encoding="utf-8")
    assert "<script" not in page
    assert re.findall(r'(?:src|href)="(?!data:|#)[^"]*"', page) == []
    assert "url(" not in page
    assert "@import" not in page


def test_every_number_of_the_page_stands_in_the_figures(two: tuple[Path, list[Path], Told]) -> None:
    """Each cell of each table, and the sentences: a number that analysis.json does not hold, in any usual rounding, fails."""
    page = (two[0] / "index.html").read_text(encoding="utf-8")
    known = _roundings(figures_of(two[0]))
    cells = [unescape(re.sub(r"<[^>]+>", " ", cell)) for cell in re.findall(r"<td.*?</td>", page, re.S)]
    cells += [
        unescape(re.sub(r"<[^>]+>", " ", cell)) for cell in re.findall(r'<ul class="sentences">.*?</ul>', page, re.S)
    ]
    numbers = {text.replace(",", "") for cell in cells for text in re.findall(r"(?<![\w.])\d[\d,]*(?:\.\d+)?", cell)}
    assert len(numbers) > 100
    assert sorted(numbers - known) == []


def _roundings(value: Any) -> set[str]:
    """Digits of every number below a JSON value: as it is, in percent, in points, with up to four decimals; text too."""
    if isinstance(value, dict):
        return set().union(*(_roundings(item) for pair in value.items() for item in pair))
    if isinstance(value, list):
        return set().union(*map(_roundings, value)) | {str(len(value))}
    if isinstance(value, str):
        return {text.replace(",", "") for text in re.findall(r"\d[\d,]*(?:\.\d+)?", value)}
    if isinstance(value, bool) or value is None:
        return set()
    size = abs(float(value))
    return {f"{scaled:.{digits}f}" for scaled in (size, 100 * size) for digits in range(5)} | {f"{size:.3g}"}


def test_a_card_of_one_network(one: Path) -> None:
    content = figures_of(one)
    assert (content["images"], content["images_of_split"]) == (3, 5)
    assert content["title"] == "run"
    assert content["comparison"]["sentences"]
    assert "--limit 3" in content["command"]


def test_names_of_classes_and_runs_are_text(two: tuple[Path, list[Path], Told]) -> None:
    card = two[0]
    text = (card / "analysis.json").read_text(encoding="utf-8")
    hostile = json.loads(text.replace('"cyclist"', json.dumps(HOSTILE)).replace('"plain"', json.dumps(HOSTILE)))
    pictures = {path.relative_to(card).as_posix(): path.read_bytes() for path in card.rglob("*.*g")}
    page = render(hostile, pictures)
    assert HOSTILE not in page
    assert page.count("&lt;img src=x") > 10


def test_pairs_may_be_spelt_as_the_data_or_as_the_network_spells_them(one: Path, tmp_path: Path) -> None:
    run, shouted = one.parent / "run", open_dataset(DATA, "val")
    shouted.classes = STREET.classes.model_copy(update={"names": tuple(name.upper() for name in STREET.classes.names)})
    for place, pair in enumerate([("CAR", "ROAD"), ("car", "road")]):
        options = AnalysisOptions(limit=1, pairs=(pair,))
        card = analyse([run], shouted, tmp_path / f"card{place}", options=options)
        found = card["grad_cam"]["pairs"]
        names = [card["classes"][found[0][key]]["name"] for key in ("truth", "confused")]
        assert names == ["car", "road"]


def test_a_pair_of_an_unknown_class_is_refused_before_the_networks_run(one: Path, tmp_path: Path) -> None:
    told = Told()
    with pytest.raises(UserError, match="'nothing'"):
        analyse(
            [one.parent / "run"],
            STREET,
            tmp_path / "card",
            options=AnalysisOptions(pairs=(("car", "nothing"),)),
            reporter=told,
        )
    assert told.notes == []


def test_names_of_files_that_are_no_text_cost_nothing(
    one: Path, tmp_path: Path, monkeypatch: pytest.MonkeyPatch
) -> None:
    strange = open_dataset(DATA, "val")
    monkeypatch.setattr(strange, "key", lambda index: f"stra\udce4e{index}")
    analyse([one.parent / "run"], strange, tmp_path / "card", options=AnalysisOptions(limit=2))
    assert "stra\ufffde" in (tmp_path / "card" / "index.html").read_text(encoding="utf-8")


def test_what_stands_at_the_output_stays(one: Path, tmp_path: Path) -> None:
    run = one.parent / "run"
    with pytest.raises(UserError, match="exists already"):
        analyse([run], STREET, one)
    (tmp_path / "notes.txt").write_text("mine")
    with pytest.raises(UserError, match="holds other things"):
        analyse([run], STREET, tmp_path, options=AnalysisOptions(overwrite=True))
    assert (tmp_path / "notes.txt").read_text() == "mine"


def test_an_older_card_is_replaced_when_asked(one: Path, tmp_path: Path) -> None:
    run, card = one.parent / "run", tmp_path / "card"
    analyse([run], STREET, card, options=AnalysisOptions(limit=1))
    (card / "left.png").write_bytes(b"old")
    analyse([run], STREET, card, options=AnalysisOptions(limit=2, overwrite=True))
    assert figures_of(card)["images"] == 2
    assert not (card / "left.png").exists()


@pytest.mark.parametrize(
    ("options", "words"),
    [
        ({"limit": 0}, "limit is 0"),
        ({"fill": "black"}, "black"),
        ({"seed": -1}, "seed is -1"),
        ({"pairs": (("car", "car"),)}, "'car' twice"),
    ],
)
def test_contradictions_are_refused(options: dict[str, Any], words: str) -> None:
    with pytest.raises(UserError, match=words):
        AnalysisOptions(**options)


@pytest.mark.parametrize(
    ("count", "limit", "expected"),
    [(5, None, [0, 1, 2, 3, 4]), (5, 9, [0, 1, 2, 3, 4]), (10, 3, [0, 3, 6]), (4, 1, [0]), (5, 4, [0, 1, 2, 3])],
)
def test_a_limit_takes_images_all_over_the_split(count: int, limit: int | None, expected: list[int]) -> None:
    assert spread(count, limit) == expected


@pytest.mark.browser
@pytest.mark.parametrize(("width", "scheme"), first_of([(390, "dark"), (1280, "light")]))
def test_a_browser_shows_it_without_fault(
    two: tuple[Path, list[Path], Told], tmp_path: Path, width: int, scheme: str
) -> None:
    seen = visit(two[0] / "index.html", width=width, scheme=scheme, screenshot=tmp_path / "page.png")
    assert seen.problems == []
    assert seen.violations == []
    assert seen.overflow == 0
    assert len(seen.pictures) > 5
    assert [
        picture for picture in seen.pictures if not (picture["alt"] and picture["width"] and picture["complete"])
    ] == []
