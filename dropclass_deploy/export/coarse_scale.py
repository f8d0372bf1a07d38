"""How many target pixels a coarse pixel covers where the network's last resize enlarges by a whole number."""

from __future__ import annotations

import numpy as np

from dropclass_deploy.export import graphs
from dropclass_deploy.export.graphs.resize import final_resize
from dropclass_deploy.export.shapes import Shape, fixed_size
from dropclass_deploy.export.size_check import open_graph

_SIZE = (128, 192)
"""Sides that every usual stride divides."""


def coarse_scale(graph: graphs.Model, shape: Shape) -> int | None:
    """H/h = W/w of the resize at the end of a logits graph, found by running it; None when there is no such number.

    Args:
        graph: ``image`` (N, 3, H, W) → ``logits`` (N, C, H, W).
        shape: (N, H, W) that it was traced with.
    """
    resize = final_resize(graph)
    if isinstance(resize, str):
        return None
    probe = graphs.with_output(graph, resize.coarse)
    height, width = fixed_size(shape) or _SIZE
    coarse = open_graph(probe).run([resize.coarse], {"image": np.zeros((shape[0] or 1, 3, height, width), np.float32)})[
        0
    ]
    rows, columns = height / coarse.shape[2], width / coarse.shape[3]
    return int(rows) if rows == columns == int(rows) and rows > 1 else None
