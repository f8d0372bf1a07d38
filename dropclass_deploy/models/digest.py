"""Which network it is, whatever file it lies in."""

from __future__ import annotations

import hashlib

import torch
from torch import nn


def network_digest(model: nn.Module) -> str:
    """SHA-256 over the names, types, shapes and values of a network's state, as lower-case hex.

    Floating-point values count as float32, as they are deployed. Independent of device, layout and order.
    """
    digest = hashlib.sha256()
    for name, value in sorted(model.state_dict().items()):
        kept = value.detach().cpu()
        kept = (kept.float() if kept.is_floating_point() else kept).contiguous()
        digest.update(f"{name} {kept.dtype} {list(kept.shape)}\n".encode())
        digest.update(kept.reshape(-1).view(torch.uint8).numpy().data)
    return digest.hexdigest()
