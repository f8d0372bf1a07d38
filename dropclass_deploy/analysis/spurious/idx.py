"""Arrays in the IDX format of MNIST: two zero bytes, a type, the number of axes, big-endian sizes, the values.

Source of the format: Y. LeCun, C. Cortes, C. Burges, "The MNIST database of handwritten digits", file formats.
"""

from __future__ import annotations

import gzip
import math
import struct
import zlib
from pathlib import Path

import numpy as np
import numpy.typing as npt

from dropclass_deploy.core.errors import DataError, first_line
from dropclass_deploy.core.regular_files import MIB, open_regular

_UNSIGNED_BYTE = 8
_LIMIT = 256 * MIB  # five times the largest file of MNIST, unpacked: a small .gz may hold much more


def read_idx(path: Path, axes: int) -> npt.NDArray[np.uint8]:
    """The array uint8 of an IDX file, packed with gzip when its name ends in .gz.

    Args:
        path: of the file.
        axes: how many the array must have, 3 for images and 1 for labels.

    Raises:
        DataError: when the file is missing, damaged or of another kind.
    """
    content = _content(path)
    header = 4 + 4 * axes
    if len(content) < header or content[:4] != bytes((0, 0, _UNSIGNED_BYTE, axes)):
        raise DataError(
            f"{path} begins with the bytes {content[:4].hex(' ') or '(none)'}",
            expected=f"an IDX file of unsigned bytes with {axes} axes (00 00 08 0{axes})",
        )
    sizes = struct.unpack(f">{axes}I", content[4:header])
    if math.prod(sizes) != len(content) - header:
        raise DataError(
            f"{path} announces {' × '.join(map(str, sizes))} values and holds {len(content) - header}",
            expected="a whole file",
            remedy="copy or download it again",
        )
    return np.frombuffer(content, np.uint8, offset=header).reshape(sizes)


def _content(path: Path) -> bytes:
    try:
        with open_regular(path, _LIMIT) as stream:
            content = gzip.GzipFile(fileobj=stream).read(_LIMIT + 1) if path.suffix == ".gz" else stream.read()
    except (OSError, EOFError, ValueError, zlib.error) as error:
        raise DataError(f"{path} cannot be read ({first_line(error)})", expected="an IDX file") from error
    if len(content) > _LIMIT:
        raise DataError(f"{path} holds more than {_LIMIT // MIB} MiB", expected="an IDX file like MNIST's")
    return content
