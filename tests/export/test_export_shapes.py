import pytest

from dropclass_deploy.core.errors import UserError
from dropclass_deploy.export.shapes import checked_shape, describe_shape, fixed_size, parse_shape


@pytest.mark.parametrize(
    ("text", "shape"),
    [
        ("1x512x1024", (1, 512, 1024)),
        ("Nx512x1024", (None, 512, 1024)),
        ("nX512X1024", (None, 512, 1024)),
        (" 4 x 96 x 128 ", (4, 96, 128)),
        ("1xHxW", (1, None, None)),
        ("*x*x*", (None, None, None)),
        ("dynamic", (None, None, None)),
        ("Dynamic", (None, None, None)),
    ],
)
def test_parse_shape_reads(text: str, shape: tuple[int | None, ...]) -> None:
    assert parse_shape(text) == shape


@pytest.mark.parametrize(
    ("text", "message"),
    [
        ("", "1 parts; expected NxHxW"),
        ("512x1024", "2 parts"),
        ("1x3x512x1024", "4 parts"),
        ("1x512xwide", "'wide' in the shape"),
        ("1x512x10.5", "'10.5' in the shape"),
        ("1x512x-4", "'-4' in the shape"),
        ("0x512x1024", "holds 0"),
        ("1x0x1024", "holds 0"),
        ("1x512x99999999999", "is not a size"),
        ("1x512x70000", "sizes from 1 to 65536"),
        ("1x512xW", "only one of height and width"),
        ("Hx512x512", "'h' in the shape"),
        ("1x٣x٣", "is not a size"),
    ],
)
def test_parse_shape_refuses(text: str, message: str) -> None:
    with pytest.raises(UserError, match=message):
        parse_shape(text)


@pytest.mark.parametrize("text", ["1x512x1024", "Nx512x1024", "1xHxW", "dynamic"])
def test_describe_shape_is_read_back(text: str) -> None:
    assert describe_shape(parse_shape(text)) == text


def test_fixed_size_needs_both() -> None:
    assert fixed_size((1, 2, 3)) == (2, 3)
    assert fixed_size((1, None, None)) is None
    with pytest.raises(UserError, match="only one of height and width"):
        checked_shape((1, None, 3))
