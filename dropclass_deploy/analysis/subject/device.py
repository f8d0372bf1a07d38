"""Where the analysis runs."""

from __future__ import annotations

import torch

from dropclass_deploy.core.errors import UserError


def device_named(name: str) -> torch.device:
    """The device that a user names.

    Raises:
        UserError: for a name that torch does not know, or a device that is not here.
    """
    try:
        device = torch.device(name)
        torch.empty(1, device=device)
    except (RuntimeError, AssertionError, NotImplementedError) as error:
        raise UserError(
            f"the device {name!r} cannot be used here", expected="cpu, or cuda where there is a GPU"
        ) from error
    return device
