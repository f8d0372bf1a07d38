"""The input shape of an export: (N, H, W), each a number or None for dynamic."""

from __future__ import annotations

import re

from dropclass_deploy.core.errors import UserError

Shape = tuple[int | None, int | None, int | None]
DYNAMIC: Shape = (None, None, None)
_LARGEST = 65536
_EXAMPLES = '"1x512x1024" (all fixed), "Nx512x1024" (any batch) or "dynamic"'


def parse_shape(text: str) -> Shape:
    """Read ``"1x512x1024"``, ``"Nx512x1024"``, ``"1xHxW"`` or ``"dynamic"`` as (N, H, W); None is dynamic.

    Raises:
        UserError: for anything else, a size out of range, or only one of height and width given.
    """
    if text.strip().lower() == "dynamic":
        return DYNAMIC
    parts = re.split(r"[x×,]", text.strip().lower())
    if len(parts) != 3:
        raise UserError(f"the shape {text!r} has {len(parts)} parts", expected=f"NxHxW, such as {_EXAMPLES}")
    sizes = [_size(part.strip(), letter, text) for part, letter in zip(parts, "nhw", strict=True)]
    return checked_shape((sizes[0], sizes[1], sizes[2]))


def _size(part: str, letter: str, text: str) -> int | None:
    if part in {letter, "*", "-1", "?"}:
        return None
    if not re.fullmatch(r"[0-9]{1,6}", part):
        raise UserError(f"{part!r} in the shape {text!r} is not a size", expected=f"NxHxW, such as {_EXAMPLES}")
    return int(part)


def checked_shape(shape: Shape) -> Shape:
    """``shape`` itself when every size is usable and height and width are both fixed or both dynamic.

    Raises:
        UserError: otherwise.
    """
    for size in shape:
        if size is not None and not 1 <= size <= _LARGEST:
            raise UserError(f"the shape {describe_shape(shape)} holds {size}", expected=f"sizes from 1 to {_LARGEST}")
    if (shape[1] is None) != (shape[2] is None):
        raise UserError(
            f"the shape {describe_shape(shape)} fixes only one of height and width",
            expected=f"both fixed or both dynamic: {_EXAMPLES}",
        )
    return shape


def fixed_size(shape: Shape) -> tuple[int, int] | None:
    """(height, width) of a shape that fixes them, else None."""
    _, height, width = shape
    return None if height is None or width is None else (height, width)


def describe_shape(shape: Shape) -> str:
    """The shape as text that ``parse_shape`` reads: ``1x512x1024``, ``Nx512x1024``, ``dynamic``."""
    if shape == DYNAMIC:
        return "dynamic"
    return "x".join(letter if size is None else str(size) for size, letter in zip(shape, "NHW", strict=True))


def parse_size(text: str) -> tuple[int, int]:
    """Read ``"512x1024"`` as (height, width).

    Raises:
        UserError: for anything else.
    """
    found = re.fullmatch(r"([0-9]{1,6})[x×]([0-9]{1,6})", text.strip().lower())
    if found is None:
        raise UserError(f"{text!r} is no size", expected="HEIGHTxWIDTH in pixels, such as 512x1024")
    return int(found[1]), int(found[2])
