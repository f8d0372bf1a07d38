"""What the official client, unmodified, gets from a server: ``python v2_client_calls.py HOST:PORT`` prints JSON.

Its own process: importing ``tritonclient.http`` brings gevent, which is kept out of the tests'.
"""

from __future__ import annotations

import json
import sys
from collections.abc import Callable
from typing import Any

import numpy as np
import tritonclient.http as triton
from tritonclient.utils import InferenceServerException
from v2_app import NAME
from v2_bodies import pixels

IMAGES = pixels(3, 4, 6, 3)


def image_input(images: np.ndarray, *, binary: bool = True, name: str = "image", datatype: str = "UINT8") -> Any:
    return triton.InferInput(name, list(images.shape), datatype).set_data_from_numpy(images, binary_data=binary)


def mask_of(result: Any) -> Any:
    mask = result.as_numpy("mask")
    return {"dtype": str(mask.dtype), "mask": mask.tolist(), "id": result.get_response().get("id")}


def wanted(binary: bool, name: str = "mask", class_count: int = 0) -> list[Any]:
    return [triton.InferRequestedOutput(name, binary_data=binary, class_count=class_count)]


def right_calls(client: Any) -> dict[str, Callable[[], Any]]:
    image, plain = image_input(IMAGES), image_input(IMAGES, binary=False)

    def infer(sent: Any, **options: Any) -> Callable[[], Any]:
        return lambda: mask_of(client.infer(NAME, [sent], **options))

    return {
        "live": client.is_server_live,
        "ready": client.is_server_ready,
        "model_ready": lambda: client.is_model_ready(NAME),
        "model_ready_1": lambda: client.is_model_ready(NAME, "1"),
        "other_ready": lambda: client.is_model_ready("other"),
        "server": client.get_server_metadata,
        "model": lambda: client.get_model_metadata(NAME),
        "config": lambda: client.get_model_config(NAME),
        "index": client.get_model_repository_index,
        "infer_default": infer(image, request_id="a1"),
        "infer_version": infer(image, model_version="1"),
        "infer_binary": infer(image, outputs=wanted(True)),
        "infer_binary_to_json": infer(image, outputs=wanted(False)),
        "infer_json": infer(plain, outputs=wanted(False)),
        "infer_json_to_binary": infer(plain, outputs=wanted(True)),
        "infer_options": infer(image, timeout=5_000_000, priority=1, parameters={"mine": "x"}),
        **{
            f"infer_{there}_{back}": infer(
                image, request_compression_algorithm=there, response_compression_algorithm=back
            )
            for there in ("gzip", "deflate", None)
            for back in ("gzip", "deflate", None)
        },
        "infer_json_gzip": infer(plain, outputs=wanted(False), response_compression_algorithm="gzip"),
        "infer_async": lambda: mask_of(client.async_infer(NAME, [image], request_id="z").get_result()),
    }


def truncated(client: Any) -> Any:
    image = image_input(IMAGES)
    image._raw_data = image._raw_data[:-5]
    return client.infer(NAME, [image])


def shared(client: Any) -> Any:
    image = triton.InferInput("image", [1, 2, 2, 3], "UINT8")
    image.set_shared_memory("region", 12)
    return client.infer(NAME, [image])


def wrong_calls(client: Any) -> dict[str, Callable[[], Any]]:
    image = image_input(IMAGES)
    floats = image_input(IMAGES.astype(np.float32), datatype="FP32")
    return {
        "shape": lambda: client.infer(NAME, [image_input(IMAGES[0])]),
        "channels": lambda: client.infer(NAME, [image_input(IMAGES[..., :2].copy())]),
        "dtype": lambda: client.infer(NAME, [floats]),
        "input_name": lambda: client.infer(NAME, [image_input(IMAGES, name="picture")]),
        "output_name": lambda: client.infer(NAME, [image], outputs=wanted(True, "logits")),
        "classification": lambda: client.infer(NAME, [image], outputs=wanted(True, class_count=2)),
        "sequence": lambda: client.infer(NAME, [image], sequence_id=5, sequence_start=True),
        "model_name": lambda: client.infer("other", [image]),
        "model_version": lambda: client.infer(NAME, [image], model_version="2"),
        "truncated": lambda: truncated(client),
        "shared_memory": lambda: shared(client),
        "async_dtype": lambda: client.async_infer(NAME, [floats]).get_result(),
        "load": lambda: client.load_model(NAME),
        "unload": lambda: client.unload_model(NAME),
        "statistics": client.get_inference_statistics,
    }


def refused(call: Callable[[], Any]) -> Any:
    try:
        return {"answered": str(call())}
    except InferenceServerException as error:
        return {"status": error.status(), "message": error.message()}


def main(address: str) -> None:
    with triton.InferenceServerClient(address, concurrency=2) as client:
        right = {name: call() for name, call in right_calls(client).items()}
        wrong = {name: refused(call) for name, call in wrong_calls(client).items()}
        right["infer_after"] = mask_of(client.infer(NAME, [image_input(IMAGES)]))
    sys.stdout.write(json.dumps({"right": right, "wrong": wrong}))


if __name__ == "__main__":
    main(sys.argv[1])
