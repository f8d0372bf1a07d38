"""Errors speak in one line: found, expected, remedy."""

from __future__ import annotations

import pytest

from dropclass_deploy.core import errors
from dropclass_deploy.core.errors import (
    ArtifactError,
    DataError,
    DropclassError,
    GateRefusedError,
    MissingExtraError,
    ModelError,
    RecipeError,
    RunError,
    TrainingInterruptedError,
    UserError,
    printable,
)

USER_ERRORS = (RecipeError, DataError, ModelError, RunError, ArtifactError, MissingExtraError)


def test_message_joins_found_expected_and_remedy() -> None:
    error = UserError("the mask holds 200", expected="0 … 10", remedy="add 200 to classes.yaml")
    assert str(error) == "the mask holds 200; expected 0 … 10; add 200 to classes.yaml"


def test_message_leaves_out_what_was_not_given() -> None:
    assert str(UserError("no file")) == "no file"
    assert str(UserError("no file", remedy="write one")) == "no file; write one"


def test_message_has_no_doubled_punctuation() -> None:
    assert str(UserError("no file.", expected="a file;", remedy="write one.")) == "no file; expected a file; write one"


def test_parts_stay_readable_on_the_error() -> None:
    error = DataError("found this", expected="that", remedy="do so")
    assert (error.found, error.expected, error.remedy) == ("found this", "that", "do so")


@pytest.mark.parametrize("kind", USER_ERRORS)
def test_every_user_error_is_caught_as_one(kind: type[UserError]) -> None:
    assert issubclass(kind, UserError)
    assert issubclass(kind, DropclassError)


@pytest.mark.parametrize("kind", [GateRefusedError, TrainingInterruptedError])
def test_a_refusing_gate_or_a_signal_is_not_the_users_mistake(kind: type[DropclassError]) -> None:
    assert issubclass(kind, DropclassError)
    assert not issubclass(kind, UserError)


def test_missing_extra_names_package_and_command() -> None:
    with pytest.raises(
        UserError, match=r"'ray' is not installed; install it with: pip install 'dropclass-deploy\[ray\]'"
    ):
        raise MissingExtraError("ray", "ray")


def test_the_page_describes_every_error_it_defines() -> None:
    defined = [name for name, value in vars(errors).items() if isinstance(value, type) and issubclass(value, Exception)]
    assert [name for name in defined if name not in (errors.__doc__ or "")] == []


@pytest.mark.parametrize(
    ("text", "expected"),
    [
        ("plain, ä, 日本, a\u200cb", "plain, ä, 日本, a\u200cb"),
        ("two\nlines\r\tand a tab", "two lines  and a tab"),
        ("\x1b[2Jgone", r"\x1b[2Jgone"),
        ("\x9b31m", r"\x9b31m"),
        ("a\u202egnp.b", r"a\u202egnp.b"),
        ("half \ud800", r"half \ud800"),
        ("nul\x00", r"nul\x00"),
        ("line\u2028line", r"line\u2028line"),
    ],
)
def test_text_of_strangers_stays_on_one_line(text: str, expected: str) -> None:
    assert printable(text) == expected
    error = UserError(text, expected=text, remedy=text)
    assert str(error) == f"{expected}; expected {expected}; {expected}"
    assert error.found == expected
    str(error).encode("utf-8")
