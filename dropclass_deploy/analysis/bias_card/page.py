"""The page of a bias card: one HTML file without network and without scripts.

It is made of ``analysis.json`` and the pictures beside it and of nothing else, so every figure on it stands in the file.
"""

from __future__ import annotations

import base64
import io
from collections.abc import Mapping
from typing import TYPE_CHECKING, Any

from PIL import Image

from dropclass_deploy.analysis.report import formats
from dropclass_deploy.core.errors import MissingExtraError

if TYPE_CHECKING:
    from jinja2 import Environment
    from markupsafe import Markup

SECTIONS = {
    "comparison": "In short",
    "co_location": "Co-location",
    "correlation": "Class correlation",
    "grad_cam": "Grad-CAM",
    "unravel": "Unravelling",
    "failures": "Failures",
    "calibration": "Calibration",
}
"""Key of ``analysis.json`` → its name in the page's navigation, in the page's order."""

_TEMPLATE = "card.html.j2"


def render(card: Mapping[str, Any], pictures: Mapping[str, bytes]) -> str:
    """The page as text.

    Args:
        card: ``analysis.json``.
        pictures: path in the output folder → PNG or SVG.

    Raises:
        MissingExtraError: when Jinja2 is not installed (extra "analysis").
    """
    shown = [name for name in SECTIONS if card.get(name) is not None]

    def picture(path: str, alt: str) -> Markup:
        return _image(path, pictures[path], alt)

    template = environment().get_template(_TEMPLATE)
    return template.render(card=card, shown=shown, titles=SECTIONS, picture=picture)


def environment() -> Environment:
    """What templates are rendered with.

    Raises:
        MissingExtraError: when Jinja2 is not installed (extra "analysis").
    """
    try:
        from jinja2 import ChoiceLoader, Environment, PackageLoader, StrictUndefined
    except ImportError as error:
        raise MissingExtraError("jinja2", "analysis") from error
    rooms = ("dropclass_deploy.analysis.bias_card", "dropclass_deploy.analysis.report")
    made = Environment(
        loader=ChoiceLoader([PackageLoader(room) for room in rooms]),
        autoescape=True,
        undefined=StrictUndefined,
        trim_blocks=True,
        lstrip_blocks=True,
    )
    made.filters |= {
        "percent": formats.percent,
        "points": formats.points,
        "count": formats.count,
        "times": formats.times,
    }
    return made


def _image(path: str, content: bytes, alt: str) -> Markup:
    """An ``<img>`` with its bytes inside."""
    from markupsafe import Markup

    data = base64.b64encode(content).decode("ascii")
    if path.endswith(".svg"):
        return Markup('<img alt="{}" src="data:image/svg+xml;base64,{}">').format(alt, data)
    with Image.open(io.BytesIO(content)) as image:
        width, height = image.size
    markup = '<img alt="{}" width="{}" height="{}" src="data:image/png;base64,{}">'
    return Markup(markup).format(alt, width, height, data)
