"""Request bodies by hand, after the protocol's text."""

from __future__ import annotations

import json
from typing import Any

import numpy as np


def pixels(*shape: int, seed: int = 0) -> np.ndarray:
    """uint8 (N, H, W, 3)."""
    return np.random.default_rng(seed).integers(0, 256, shape, dtype=np.uint8)


def json_input(images: np.ndarray, *, nested: bool = False) -> dict[str, Any]:
    data = images.tolist() if nested else images.ravel().tolist()
    return {"name": "image", "shape": list(images.shape), "datatype": "UINT8", "data": data}


def json_body(images: np.ndarray, *, nested: bool = False, **rest: Any) -> bytes:
    return json.dumps({"inputs": [json_input(images, nested=nested)], **rest}).encode()


def binary_input(images: np.ndarray) -> dict[str, Any]:
    parameters = {"binary_data_size": images.nbytes}
    return {"name": "image", "shape": list(images.shape), "datatype": "UINT8", "parameters": parameters}


def binary_body(images: np.ndarray, **rest: Any) -> tuple[bytes, dict[str, str]]:
    """The body and its header field."""
    head = json.dumps({"inputs": [binary_input(images)], **rest}).encode()
    return head + images.tobytes(), {"Inference-Header-Content-Length": str(len(head))}
