"""Composite images: two source images on a grid, the second's class tied to the first's where one asks for it.

The class of a composite is that of its first source. For the linked classes the second source has the same class with
probability ``strength``, else any class, each as likely; for the other classes always any. At strength 0
the second tells nothing; the more it tells, the more a network learns of it, and that is spurious: only the first counts.
"""

from __future__ import annotations

from dataclasses import dataclass

import numpy as np
import numpy.typing as npt

from dropclass_deploy.analysis.spurious.sources import Source
from dropclass_deploy.core.errors import DataError

Images = npt.NDArray[np.uint8]
Ids = npt.NDArray[np.int64]


@dataclass(frozen=True)
class Layout:
    """Where things stand; cells are counted row by row from the top left.

    Attributes:
        grid: cells on each side.
        first: the cell of the source that gives the class.
        second: the cell of the other.
        inverted: whether the second is shown dark on white. Where both come from one set nothing but the place would
            otherwise say which of them counts, and a network that averages over places hardly sees that.
    """

    grid: int = 3
    first: int = 0
    second: int = 8
    inverted: bool = True

    def __post_init__(self) -> None:
        cells = self.grid**2
        inside = 0 <= self.first < cells and 0 <= self.second < cells
        if self.grid < 2 or not inside or self.first == self.second:
            raise DataError(
                f"cells {self.first} and {self.second} are asked for on a grid of {self.grid}×{self.grid}",
                expected=f"a grid of 2 or more and two different cells of 0 … {cells - 1}",
            )

    def elsewhere(self) -> tuple[int, ...]:
        """The cells to which the first source can be moved."""
        return tuple(cell for cell in range(self.grid**2) if cell not in (self.first, self.second))


@dataclass(frozen=True)
class Link:
    """Which classes the second source follows, and how often.

    Attributes:
        classes: ids of the linked classes.
        strength: the probability in [0, 1] that it follows.
    """

    classes: tuple[int, ...] = ()
    strength: float = 0.0

    def __post_init__(self) -> None:
        if not 0 <= self.strength <= 1:
            raise DataError(f"a link has the strength {self.strength}", expected="0 … 1")


@dataclass(frozen=True)
class Composites:
    """Composite images and what is in them.

    Attributes:
        images: uint8 (n, H, W), black where no source is.
        labels: int64 (n,), the class of the first source, which is the composite's.
        seconds: int64 (n,), the class of the second.
        cells: int64 (n,), the cell of the first.
    """

    images: Images
    labels: Ids
    seconds: Ids
    cells: Ids

    def subset(self, chosen: npt.NDArray[np.bool_] | Ids) -> Composites:
        """Those that a mask (n,) or ids choose."""
        return Composites(self.images[chosen], self.labels[chosen], self.seconds[chosen], self.cells[chosen])


def compose(
    first: Source,
    second: Source,
    count: int,
    layout: Layout,
    link: Link,
    generator: np.random.Generator,
    *,
    cells: tuple[int, ...] = (),
) -> Composites:
    """Composites of which every class of the first source gets an equal share, up to one image.

    Args:
        first: gives the class; images are drawn with replacement.
        second: with as many classes and images of the same size.
        count: n.
        layout: of the grid.
        link: between the classes.
        generator: draws sources and cells.
        cells: those among which the first source is placed, each as likely; default its cell in the layout.

    Raises:
        DataError: when sources or link do not fit.
    """
    _check(first, second, link)
    classes = first.num_classes
    labels = generator.permutation(np.arange(count, dtype=np.int64) % classes)
    follows = np.isin(labels, link.classes) & (generator.random(count) < link.strength)
    seconds = np.where(follows, labels, generator.integers(0, classes, count))
    places = generator.choice(np.array(cells or (layout.first,), dtype=np.int64), count)
    shown = _of_classes(second, seconds, generator)
    parts = [(_of_classes(first, labels, generator), places)]
    parts.append((255 - shown if layout.inverted else shown, np.full(count, layout.second)))
    return Composites(_placed(parts, layout.grid), labels, seconds, places)


def cell_box(cell: int, grid: int, size: tuple[int, int]) -> tuple[slice, slice]:
    """Rows and columns of a cell, in a picture of ``size`` (H, W) that the grid divides."""
    (row, column), (height, width) = divmod(cell, grid), (size[0] // grid, size[1] // grid)
    return slice(row * height, (row + 1) * height), slice(column * width, (column + 1) * width)


def _check(first: Source, second: Source, link: Link) -> None:
    if (first.num_classes, first.size) != (second.num_classes, second.size):
        raise DataError(
            f"the first source has {first.num_classes} classes and images of {first.size[0]}×{first.size[1]} pixels, "
            f"the second {second.num_classes} and {second.size[0]}×{second.size[1]}",
            expected="as many classes and the same size",
        )
    foreign = [index for index in link.classes if not 0 <= index < first.num_classes]
    if foreign:
        raise DataError(f"classes {foreign} are to be linked", expected=f"ids of 0 … {first.num_classes - 1}")


def _of_classes(source: Source, labels: Ids, generator: np.random.Generator) -> Images:
    """(n, h, w): for each label an image of its class, drawn with replacement."""
    images = np.empty((len(labels), *source.size), dtype=np.uint8)
    for index in range(source.num_classes):
        wanted = np.flatnonzero(labels == index)
        images[wanted] = source.images[generator.choice(np.flatnonzero(source.labels == index), len(wanted))]
    return images


def _placed(parts: list[tuple[Images, Ids]], grid: int) -> Images:
    """(n, g·h, g·w) from images (n, h, w) with the cell of each."""
    count, height, width = parts[0][0].shape
    canvas = np.zeros((count, grid * height, grid * width), dtype=np.uint8)
    for images, cells in parts:
        for cell in np.unique(cells):
            chosen = np.flatnonzero(cells == cell)
            canvas[(chosen, *cell_box(int(cell), grid, (grid * height, grid * width)))] = images[chosen]
    return canvas
