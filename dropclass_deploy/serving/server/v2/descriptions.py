"""What the protocol says of the server and its models."""

from __future__ import annotations

from typing import Any

from dropclass_deploy import __version__
from dropclass_deploy.serving.server.hosting import HostedModel
from dropclass_deploy.serving.server.v2.schema import DATATYPE, IMAGE, MASK

# Any number of images, any size.
_IMAGE_DIMS, _MASK_DIMS = [-1, -1, -1, 3], [-1, -1, -1]
# "<project>_<format>", as the protocol names platforms: which runtime opens the ONNX files is not the client's affair.
PLATFORM = "dropclass_onnx"


def server_metadata() -> dict[str, Any]:
    """Of ``GET /v2``; of the repository extension there is the index alone."""
    return {
        "name": "dropclass_deploy",
        "version": __version__,
        "extensions": ["binary_tensor_data", "model_configuration", "model_repository"],
    }


def model_metadata(model: HostedModel) -> dict[str, Any]:
    """Of ``GET /v2/models/NAME``."""
    return {
        "name": model.name,
        "versions": [model.version],
        "platform": PLATFORM,
        "inputs": [{"name": IMAGE, "datatype": DATATYPE, "shape": _IMAGE_DIMS}],
        "outputs": [{"name": MASK, "datatype": DATATYPE, "shape": _MASK_DIMS}],
    }


def model_config(model: HostedModel) -> dict[str, Any]:
    """Of ``GET /v2/models/NAME/config``, Triton's; ``max_batch_size`` 0 says that the dims hold the batch's."""
    return {
        "name": model.name,
        "platform": PLATFORM,
        "backend": "dropclass",
        "max_batch_size": 0,
        "input": [{"name": IMAGE, "data_type": f"TYPE_{DATATYPE}", "dims": _IMAGE_DIMS}],
        "output": [{"name": MASK, "data_type": f"TYPE_{DATATYPE}", "dims": _MASK_DIMS}],
    }


def index_entry(model: HostedModel) -> dict[str, Any]:
    """One of ``POST /v2/repository/index``."""
    state, reason = ("READY", "") if model.ready else ("UNAVAILABLE", "the network does not answer")
    return {"name": model.name, "version": model.version, "state": state, "reason": reason}
