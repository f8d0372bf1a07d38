"""The class table refuses what cannot be a set of classes, and finds the rare ones."""

from __future__ import annotations

import numpy as np
import pytest
from pydantic import ValidationError

from dropclass_deploy.core.classes import ClassTable, check_same_names, default_palette, rare_classes
from dropclass_deploy.core.errors import DataError


def table(count: int = 3) -> ClassTable:
    return ClassTable(names=tuple(f"class {index}" for index in range(count)))


def test_a_palette_is_made_when_none_is_given() -> None:
    assert table().palette == default_palette(3)


def test_a_given_palette_is_kept() -> None:
    classes = ClassTable(names=("a", "b"), palette=((1, 2, 3), (4, 5, 6)))
    assert classes.palette == ((1, 2, 3), (4, 5, 6))


def test_round_trip_through_json() -> None:
    classes = ClassTable(names=("ä", "<b>"), palette=((0, 0, 0), (255, 255, 255)), ignore_index=254, rare=(1,))
    assert ClassTable.model_validate_json(classes.model_dump_json()) == classes


@pytest.mark.parametrize(
    ("fields", "message"),
    [
        ({"names": ("a", "a")}, "must differ"),
        ({"names": ("a", "  ")}, "must not be empty"),
        ({"names": ("a",)}, "at least 2"),
        ({"names": tuple(str(index) for index in range(256))}, "at most 255"),
        ({"names": ("a", "b"), "palette": ((0, 0, 0),)}, "1 colours for 2 classes"),
        ({"names": ("a", "b"), "palette": ((0, 0, 256), (0, 0, 0))}, "from 0 to 255"),
        ({"names": ("a", "b"), "palette": ((0, 0, -1), (0, 0, 0))}, "from 0 to 255"),
        ({"names": ("a", "b"), "rare": (2,)}, "outside the class table"),
        ({"names": ("a", "b"), "rare": (-1,)}, "outside the class table"),
        ({"names": ("a", "b"), "ignore_index": 1}, "ignore_index 1 is also the id of class 'b'"),
        ({"names": ("a", "b"), "colours": ()}, "Extra inputs"),
    ],
)
def test_refuses(fields: dict[str, object], message: str) -> None:
    with pytest.raises(ValidationError, match=message):
        ClassTable.model_validate(fields)


def test_255_classes_leave_the_ignore_value_free() -> None:
    assert len(table(255)) == 255


def test_a_table_cannot_be_changed() -> None:
    with pytest.raises(ValidationError, match="frozen"):
        table().ignore_index = 7  # type: ignore[misc]


@pytest.mark.parametrize("count", [2, 19, 150, 255])
def test_default_colours_differ_and_none_is_the_black_of_ignore(count: int) -> None:
    palette = default_palette(count)
    assert len(set(palette)) == count
    assert (0, 0, 0) not in palette


def test_nine_of_nineteen_are_rare() -> None:
    assert rare_classes(np.arange(19)[::-1]) == tuple(range(10, 19))


def test_equal_counts_go_to_the_lower_id() -> None:
    assert rare_classes([5, 5, 5, 5, 5]) == (0, 1)


def test_rare_ids_are_ascending_whatever_the_counts() -> None:
    assert rare_classes([1, 900, 3, 2, 800]) == (0, 3)


def test_a_class_without_pixels_is_rare() -> None:
    assert rare_classes([10, 0, 20]) == (1,)


def test_with_rare_from_marks_and_leaves_the_original_alone() -> None:
    plain = table(4)
    marked = plain.with_rare_from(np.array([4, 1, 3, 2]))
    assert plain.rare == ()
    assert [marked.is_rare(index) for index in range(4)] == [False, True, False, True]


def test_with_rare_from_refuses_counts_of_another_table() -> None:
    with pytest.raises(DataError, match="5 pixel counts for 4 classes"):
        table(4).with_rare_from([1, 2, 3, 4, 0])


@pytest.mark.parametrize(
    "others", [("Road Marking", "sky"), ("road-marking", "SKY"), ("roadmarking", " s k y"), ("road_marking", "sky")]
)
def test_spelling_does_not_make_another_class(others: tuple[str, str]) -> None:
    ClassTable(names=("road_marking", "sky")).check_same(ClassTable(names=others), "the run", "the data")


def test_the_same_classes_in_another_order_are_refused() -> None:
    message = r"^class 1 is 'b' in the run and 'c' in the data: the same classes in another order; expected the same"
    with pytest.raises(DataError, match=message):
        ClassTable(names=("a", "b", "c")).check_same(ClassTable(names=("a", "c", "b")), "the run", "the data")


def test_the_first_other_name_is_named() -> None:
    with pytest.raises(DataError, match=r"^class 2 is 'c' in the run and 'x' in the data; expected the same classes"):
        ClassTable(names=("a", "b", "c", "d")).check_same(ClassTable(names=("a", "b", "x", "y")), "the run", "the data")


def test_another_number_of_classes_is_refused_before_names_are_looked_at() -> None:
    with pytest.raises(DataError, match="the data has 3 classes and the run 2; expected the same number"):
        table(2).check_same(table(3), "the run", "the data")


def test_names_that_only_spelling_tells_apart_are_compared_letter_by_letter() -> None:
    with pytest.raises(DataError, match="in another order"):
        ClassTable(names=("a b", "ab")).check_same(ClassTable(names=("ab", "a b")), "the run", "the data")


def test_a_renamed_class_may_pass_and_a_moved_one_never() -> None:
    told = check_same_names(("a", "b", "c"), ("a", "x", "c"), "A", "B", allow_renamed=True)
    assert told == "class 1 is 'b' in A and 'x' in B"
    with pytest.raises(DataError, match=r"class 1 is 'b' in A and 'x' in B; expected the same classes"):
        check_same_names(("a", "b", "c"), ("d", "x", "b"), "A", "B", allow_renamed=True)
