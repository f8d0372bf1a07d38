"""``dropclass analyze``: its files and lines, and wrong words."""

from __future__ import annotations

import json
from pathlib import Path

import pytest
from cli_data import DATA


def test_the_card_is_written_and_its_sentences_are_printed(dropclass, trained: Path, tmp_path: Path) -> None:
    card = tmp_path / "card"
    result = dropclass("analyze", str(trained), "--data", DATA, "--limit", "2", "-o", str(card))
    assert result.code == 0
    figures = json.loads((card / "analysis.json").read_text())
    for sentence in figures["comparison"]["sentences"]:
        assert sentence in result.out
    assert (card / "index.html").is_file()
    again = dropclass("analyze", str(trained), "--data", DATA, "--limit", "2", "-o", str(card))
    assert (again.code, "exists already" in again.err) == (2, True)
    printed = dropclass(
        "analyze", str(trained), "--data", DATA, "--limit", "1", "-o", str(card), "--overwrite", "--json"
    )
    assert json.loads(printed.out)["images"] == 1


@pytest.mark.parametrize(
    ("words", "said"),
    [
        (["--fill", "black"], "black"),
        (["--pairs", "car"], "TRUE:TAKEN"),
        (["--pairs", "car:nothing"], "nothing"),
        (["--device", "gpu"], "cannot be used here"),
        (["--limit", "0"], "--limit"),
        (["--split", "nowhere"], "nowhere"),
    ],
)
def test_wrong_words_are_one_line(dropclass, trained: Path, tmp_path: Path, words: list[str], said: str) -> None:
    result = dropclass("analyze", str(trained), "--data", DATA, "-o", str(tmp_path / "card"), *words)
    assert said in result.mistake()
    assert not (tmp_path / "card").exists()


def test_what_is_no_run_is_refused(dropclass, tmp_path: Path) -> None:
    result = dropclass("analyze", str(tmp_path), "--data", "synthetic:", "-o", str(tmp_path / "card"))
    assert result.code == 2
    assert not (tmp_path / "card").exists()
