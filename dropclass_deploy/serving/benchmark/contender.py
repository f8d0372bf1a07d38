"""What takes part in the benchmark, and what each scope means.

Every contender makes the same product, the mask of class ids, from the same encoded image. The scopes differ in where
the clock starts:

* ``model``: the network's own input lies ready where the network reads it (decoded, resized, normalised where the network
  wants it so, on the device) → the mask, wherever the network leaves it;
* ``transfer``: the decoded image as a NumPy array, uint8 (H, W, 3) at the network's size → the mask as a NumPy array;
  whatever the contender does outside its network (normalising, the argmax) is inside the clock;
* ``end_to_end``: encoded bytes → the mask at the image's source size, uint8 (H, W) as a NumPy array.
"""

from __future__ import annotations

from collections.abc import Callable, Mapping
from typing import Protocol

MODEL, TRANSFER, END_TO_END = SCOPES = ("model", "transfer", "end_to_end")

Query = Callable[[], Mapping[str, float]]
"""One query; returns its stages in ms by name, or an empty mapping where the scope has none."""


class Contender(Protocol):
    """One way from an image to its mask.

    Attributes:
        name: in tables, unique in one run ("ours", "torch eager", "naive").
        runtime: what executes the network ("onnxruntime", "torch").
        precision: of the network as it runs ("fp32").
        provider: the execution provider or device that really runs it.
    """

    name: str
    runtime: str
    precision: str
    provider: str

    def prepare(self, encoded: bytes) -> Mapping[str, Query]:
        """One callable a scope (any subset of ``SCOPES``), ready to be timed on this encoded image."""
        ...
