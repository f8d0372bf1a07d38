"""Inputs held against the network's own signature, for runtimes that would cast or guess."""

from __future__ import annotations

import numpy as np

from dropclass_deploy.core.errors import UserError
from dropclass_deploy.serving.runtimes.base import Feeds, TensorSpec


def check_feeds(feeds: Feeds, inputs: tuple[TensorSpec, ...], engine: str) -> None:
    """Raise UserError when ``feeds`` are not exactly the network's inputs: names, types, ranks and fixed sizes."""
    for spec in inputs:
        value = feeds.get(spec.name)
        if not isinstance(value, np.ndarray) or not _fits(value, spec):
            found = "nothing" if value is None else f"{getattr(value, 'dtype', type(value).__name__)} {np.shape(value)}"
            raise UserError(
                f"{engine} refused the input: {spec.name} is {found}", expected=", ".join(str(item) for item in inputs)
            )
    unknown = [name for name in feeds if name not in {spec.name for spec in inputs}]
    if unknown:
        raise UserError(
            f"{engine} refused the input: {unknown[0]!r} is none of the network's inputs",
            expected=", ".join(str(item) for item in inputs),
        )


def _fits(value: np.ndarray, spec: TensorSpec) -> bool:
    if str(value.dtype) != spec.dtype or value.ndim != len(spec.shape):
        return False
    return all(wanted in (None, size) for wanted, size in zip(spec.shape, value.shape, strict=True))
