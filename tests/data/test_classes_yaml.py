from __future__ import annotations

from pathlib import Path

import numpy as np
import pytest

from dropclass_deploy.core.errors import DataError
from dropclass_deploy.data.classes_yaml import ClassesFile, read_classes_yaml

MAIN = """
classes:
  - {name: background, colour: [0, 0, 0], value: 0}
  - {name: cytoplasm, colour: [0, 128, 0], value: 128}
  - {name: nucleus, colour: [255, 0, 0], value: 255}
"""
NAMES = "names: [background, cytoplasm, nucleus]\n"


@pytest.fixture
def path(tmp_path: Path) -> Path:
    return tmp_path / "classes.yaml"


def read(path: Path, text: str) -> ClassesFile:
    path.write_text(text, encoding="utf-8")
    return read_classes_yaml(path)


def ids(config: ClassesFile, *raw: int) -> list[int]:
    return config.labels.apply(np.array(raw), Path("m.png")).tolist()


def test_main_form(path: Path) -> None:
    config = read(path, MAIN)
    assert config.classes.names == ("background", "cytoplasm", "nucleus")
    assert config.classes.palette == ((0, 0, 0), (0, 128, 0), (255, 0, 0))
    assert ids(config, 0, 128, 255) == [0, 1, 2]
    assert config.splits is None
    assert config.root == path.parent


@pytest.mark.parametrize(
    "text",
    [
        MAIN.replace("colour", "color").replace("value: 128", "values: [128]"),
        NAMES + "colours: [[0, 0, 0], [0, 128, 0], [255, 0, 0]]\nvalues: [0, 128, 255]",
        NAMES + "colors: [[0, 0, 0], [0, 128, 0], [255, 0, 0]]\nvalues: [[0], [128], [255]]",
        NAMES + "palette: [[0, 0, 0], [0, 128, 0], [255, 0, 0]]\nmapping: {0: 0, 128: 1, 255: 2}",
        NAMES + "palette: [[0, 0, 0], [0, 128, 0], [255, 0, 0]]\nmap: {0: background, 128: cytoplasm, 255: nucleus}",
        NAMES
        + "palette: [[0, 0, 0], [0, 128, 0], [255, 0, 0]]\nvalues: {background: 0, cytoplasm: 128, nucleus: [255]}",
        "names: {0: background, 2: nucleus, 1: cytoplasm}\n"
        "palette: [[0, 0, 0], [0, 128, 0], [255, 0, 0]]\nvalues: [0, 128, 255]",
    ],
)
def test_every_form_gives_the_same_table(text: str, path: Path) -> None:
    expected, config = read(path, MAIN), read(path, text)
    assert config.classes == expected.classes
    assert ids(config, 0, 128, 255) == [0, 1, 2]


def test_value_defaults_to_the_position_and_entries_may_be_names(path: Path) -> None:
    assert ids(read(path, "classes: [a, {name: b}, c]"), 0, 1, 2) == [0, 1, 2]
    assert ids(read(path, NAMES), 0, 1, 2) == [0, 1, 2]


def test_255_is_ignored_by_convention(path: Path) -> None:
    assert ids(read(path, "classes: [a, b]"), 1, 255) == [1, 255]


def test_255_as_a_class_is_that_class(path: Path) -> None:
    assert ids(read(path, "classes: [a, {name: b, value: 255}]"), 255) == [1]


@pytest.mark.parametrize("text", ["ignore: []", "ignore: null", "ignore: [200]"])
def test_a_written_ignore_replaces_the_convention(text: str, path: Path) -> None:
    config = read(path, "classes: [a, b]\n" + text)
    with pytest.raises(DataError, match=r"no class: 255 .*add it to .*classes\.yaml"):
        ids(config, 255)


@pytest.mark.parametrize(
    "text",
    ["ignore: 9", "ignore: [9]", "ignore_value: 9", "ignore_values: [9, 10]", "ignore_index: 9"],
)
def test_spellings_of_ignore(text: str, path: Path) -> None:
    assert ids(read(path, "classes: [a, b]\n" + text), 9) == [255]


@pytest.mark.parametrize("target", ["null", "ignore", "255"])
def test_a_mapping_can_ignore(target: str, path: Path) -> None:
    assert ids(read(path, f"names: [a, b]\nvalues: {{0: 0, 1: 1, 9: {target}}}"), 1, 9) == [1, 255]


def test_several_raw_values_of_one_class(path: Path) -> None:
    assert ids(read(path, "classes: [a, {name: b, values: [3, 4]}]"), 0, 3, 4) == [0, 1, 1]
    assert ids(read(path, "names: [a, b]\nmap: {0: 0, 3: 1, 4: 1}"), 0, 3, 4) == [0, 1, 1]


def test_root_is_relative_to_the_file(path: Path) -> None:
    assert read(path, "classes: [a, b]\nroot: ../data").root == path.parent / "../data"


@pytest.mark.parametrize("key", ["value_range", "image_range", "intensity_range"])
def test_value_range(key: str, path: Path) -> None:
    assert read(path, f"classes: [a, b]\n{key}: [-1024, 3071.5]").value_range == (-1024.0, 3071.5)
    assert read(path, f"classes: [a, b]\n{key}: null").value_range is None


WRONG = {
    "unknown_key": ("classes: [a, b]\nclases: 3", "unknown key 'clases' in the file; expected one of classes, names"),
    "unknown_class_key": ("classes: [{name: a, id: 3}, b]", "unknown key 'id' in the class at position 0; .*name"),
    "two_spellings": ("classes: [a, b]\nignore: 1\nignore_index: 2", "another spelling"),
    "both_forms": ("classes: [a, b]\nnames: [a, b]", "side by side"),
    "no_classes": ("ignore: 3", "names no classes; expected for example classes:"),
    "one_class": ("classes: [a]", "class table does not fit"),
    "no_list": ("classes: 3", "classes is 3; expected a list"),
    "entry_is_number": ("classes: [a, 3]", "class at position 1 is 3"),
    "no_name": ("classes: [a, {value: 3}]", "name of the class at position 1 is None"),
    "yaml_boolean_name": ("names: [yes, no]", "is True; expected text; put it in quotes"),
    "same_name": ("classes: [a, a]", "class names must differ"),
    "raw_value_twice": ("classes: [{name: a, value: 1}, b]", "raw value 1 stands twice .class a and b."),
    "value_and_ignore": ("classes: [a, b]\nignore: 1", "raw value 1 is ignored and also class 'b'"),
    "key_twice": ("names: [a, b]\nvalues: {0: a, 0: b}", "the key 0 stands twice"),
    "id_gap": ("names: {0: a, 2: b}", "ids in names jump: 1 is missing"),
    "fewer_colours": ("names: [a, b]\ncolours: [[0, 0, 0]]", "2 classes but 1 colours"),
    "more_values": ("names: [a, b]\nvalues: [0, 1, 2]", "2 classes but 3 values"),
    "class_without_value": ("names: [a, b]\nvalues: {0: a}", "class 'b' has no raw value"),
    "empty_values": ("classes: [a, {name: b, values: []}]", "class 'b' has no raw value"),
    "mapped_nowhere": ("names: [a, b]\nvalues: {0: 0, 1: 1, 2: 7}", "raw value 2 is mapped to 7; .*id from 0 to 1"),
    "mapped_to_unknown_name": ("names: [a, b]\nvalues: {0: a, 1: c}", "raw value 1 is mapped to 'c'"),
    "mapped_to_true": ("names: [a, b]\nvalues: {0: 0, 1: true}", "raw value 1 is mapped to True"),
    "value_out_of_range": ("classes: [a, {name: b, value: 65536}]", "value of class 'b' is 65536"),
    "value_is_text": ("classes: [a, {name: b, value: x}]", "value of class 'b' is 'x'; expected a whole number"),
    "colour_out_of_range": ("classes: [{name: a, colour: [0, 0, 256]}, b]", "class 'b' has no colour"),
    "bad_colour": ("names: [a, b]\ncolours: [[0, 0, 256], [0, 0, 0]]", "colour of class 'a' is .0, 0, 256."),
    "bad_root": ("classes: [a, b]\nroot: 3", "root is 3"),
    "bad_splits": ("classes: [a, b]\nsplits: 3", "splits is 3"),
    "unquoted_split": ("classes: [a, b]\nsplits: {val: [010]}", "splits.val is .8.; .*each in quotes"),
    "no_yaml": ("classes: [a, b", "is not valid YAML"),
    "no_mapping": ("- a\n- b", "holds list"),
    "empty": ("", "holds NoneType"),
    "python_object": ("classes: !!python/object/apply:os.getcwd []", "is not valid YAML"),
    "bad_date": ("classes: [a, 2001-99-99]", "is not valid YAML"),
    "range_of_nothing": (
        "classes: [a, b]\nvalue_range: [5, 5]",
        "value_range is .5, 5.; expected .low, high., two finite",
    ),
    "range_upside_down": ("classes: [a, b]\nvalue_range: [5, 4]", "value_range is .5, 4."),
    "range_nan": ("classes: [a, b]\nvalue_range: [.nan, 4]", "value_range is .nan, 4."),
    "range_infinite": ("classes: [a, b]\nvalue_range: [0, .inf]", "value_range is .0, inf."),
    "range_of_text": ("classes: [a, b]\nvalue_range: [0, 4e3]", "value_range is .0, '4e3'."),
    "range_of_three": ("classes: [a, b]\nvalue_range: [0, 1, 2]", "value_range is .0, 1, 2."),
    "range_number": ("classes: [a, b]\nvalue_range: 255", "value_range is 255"),
    "range_boolean": ("classes: [a, b]\nvalue_range: [false, true]", "value_range is .False, True."),
    "range_beyond_floats": (f"classes: [a, b]\nvalue_range: [0, 1{'0' * 400}]", "value_range is .0, 10000"),
    "range_too_fine": (f"classes: [a, b]\nvalue_range: [{2**60}, {2**60 + 1}]", "value_range is .1152921504606846976"),
    "range_twice": ("classes: [a, b]\nvalue_range: [0, 1]\nimage_range: [0, 1]", "another spelling"),
    "window": ("classes: [a, b]\nwindow: [40, 400]", "unknown key 'window'"),
    "too_deep": ("[" * 5000, "is not valid YAML"),
}


@pytest.mark.parametrize("name", WRONG)
def test_mistakes_are_one_clear_line(name: str, path: Path) -> None:
    text, message = WRONG[name]
    with pytest.raises(DataError, match=message) as caught:
        read(path, text)
    assert str(path) in str(caught.value)
    assert "\n" not in str(caught.value)


def test_a_file_that_is_no_text_or_too_long_is_refused(path: Path) -> None:
    path.write_bytes(b"\xff\xfe\x00classes")
    with pytest.raises(DataError, match="is not valid YAML"):
        read_classes_yaml(path)
    path.write_text("#" * (1 << 21))
    with pytest.raises(DataError, match="bytes long"):
        read_classes_yaml(path)


def test_aliases_that_multiply_do_not_multiply_the_message(path: Path) -> None:
    lines = ["a0: &a0 [x, x, x, x, x, x, x, x, x]"]
    lines += [f"a{n}: &a{n} [{', '.join([f'*a{n - 1}'] * 9)}]" for n in range(1, 12)]
    with pytest.raises(DataError, match="unknown key 'a0'"):
        read(path, "\n".join(lines))
    with pytest.raises(DataError, match="class at position 0 is") as caught:
        read(
            path, "classes:\n  - &a0 [x, x, x]\n" + "".join(f"  - &a{n} [*a{n - 1}, *a{n - 1}]\n" for n in range(1, 40))
        )
    assert len(str(caught.value)) < 1000
