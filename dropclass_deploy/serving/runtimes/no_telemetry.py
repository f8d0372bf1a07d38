"""Libraries that report their use over the network, imported without that.

OpenVINO and NNCF send an event and a persistent client id to an analytics server at their import, unasked. Images of
streets and patients are processed where that must not happen.
"""

from __future__ import annotations

import importlib
import sys
from typing import Any

_SENDER = "openvino_telemetry"


def import_quietly(name: str) -> Any:
    """The module ``name``, imported while the package that would send is not to be found.

    Both libraries then take the stub that they have for machines without it.

    Raises:
        ImportError: as the import itself.
    """
    missing = object()
    before = sys.modules.get(_SENDER, missing)
    if before is missing:
        sys.modules[_SENDER] = None  # type: ignore[assignment]  # how Python spells "not to be found"
    try:
        return importlib.import_module(name)
    finally:
        if before is missing:
            del sys.modules[_SENDER]
