from __future__ import annotations

from pathlib import Path

import pytest
from hypothesis import given
from hypothesis import strategies as st

from dropclass_deploy.core.errors import DataError
from dropclass_deploy.data.file_pairs import natural_order
from dropclass_deploy.data.split_rules import default_splits, missing_split, read_split_file, select_stems

STEMS = [f"{number:03d}" for number in range(1, 301)]


def test_a_range_takes_both_ends() -> None:
    assert select_stems(["001..240"], STEMS, "splits.train") == STEMS[:240]
    assert select_stems(["241..300"], STEMS, "splits.val") == STEMS[240:]


def test_globs_stems_and_file_names_add_up_without_repetition_in_order() -> None:
    assert select_stems(["29?", "290", "002.png", "images/001.jpg"], STEMS, "x") == ["001", "002", *STEMS[289:299]]


def test_a_stem_with_two_dots_is_taken_literally() -> None:
    assert select_stems(["a..b"], ["a", "a..b", "b"], "x") == ["a..b"]


def test_the_end_of_a_range_must_exist() -> None:
    with pytest.raises(DataError, match=r"splits\.val: there is no file '301'; the files are 001, 002 … 300"):
        select_stems(["241..301"], STEMS, "splits.val")


def test_a_rule_without_a_match_is_refused() -> None:
    with pytest.raises(DataError, match=r"'frame_.' matches none of the 300 files"):
        select_stems(["frame_*"], STEMS, "x")
    with pytest.raises(DataError, match="matches none"):
        select_stems(["300..001"], STEMS, "x")


def test_300_files_without_a_split_are_cut_after_240() -> None:
    splits = default_splits(STEMS[::-1])
    assert splits == {"train": STEMS[:240], "val": STEMS[240:], "all": STEMS}


@given(st.sets(st.text(alphabet="ab01_", min_size=1, max_size=5), max_size=40))
def test_default_splits_part_the_files(stems: set[str]) -> None:
    splits = default_splits(sorted(stems))
    assert splits["train"] + splits["val"] == splits["all"]
    assert set(splits["all"]) == stems
    assert len(splits["train"]) == int(0.8 * len(stems) + 1e-9)


def test_natural_order_reads_digits_as_numbers() -> None:
    stems = ["f10", "f2", "a", "f1b", "10", "f01", "9"]
    assert sorted(stems, key=natural_order) == ["9", "10", "a", "f01", "f1b", "f2", "f10"]


def test_split_file_skips_blank_lines_and_comments(tmp_path: Path) -> None:
    path = tmp_path / "val.txt"
    path.write_text("# mine\n001\n\n  images/002.png \r\n003.tar\n")
    assert read_split_file(path) == ["001", "002", "003.tar"]


@pytest.mark.parametrize(
    ("content", "message"),
    [(b"", "is empty"), (b"a\nb\na.png\n", "names 'a' twice"), (b"\xff\xfe\x00", "cannot be read as text")],
)
def test_broken_split_files_are_refused(content: bytes, message: str, tmp_path: Path) -> None:
    path = tmp_path / "val.txt"
    path.write_bytes(content)
    with pytest.raises(DataError, match=message):
        read_split_file(path)


@pytest.mark.parametrize("split", ["train", "val"])
def test_a_missing_split_of_a_training_tells_the_recipe_key(split: str) -> None:
    error = missing_split("data/x has no split", split, ["left", "right"])
    assert str(error) == (
        f"data/x has no split '{split}'; expected one of left, right; "
        f"choose one of these: --split NAME, or in training --set splits.{split}=NAME"
    )


def test_any_other_missing_split_is_nobodys_recipe() -> None:
    assert "--set" not in str(missing_split("data/x has no split", "exam", ["train"]))
