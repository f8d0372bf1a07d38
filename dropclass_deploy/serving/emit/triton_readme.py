"""The README of a Triton repository: what the model takes, what a client does itself, one request as code."""

from __future__ import annotations

from dropclass_deploy.core.preprocess import Preprocess
from dropclass_deploy.core.sliding_window import Window
from dropclass_deploy.serving.runtimes.onnx_file.graph_io import GraphIO

LABELS = "labels.txt"
_SIZE_WITHOUT_ANY = (512, 1024)


def readme(name: str, preprocess: Preprocess, io: GraphIO, *, largest: int | None, gpus: bool) -> str:
    """The whole file, Markdown.

    Args:
        name: of the model.
        preprocess: of the artifact.
        io: of the served ONNX file.
        largest: images a request may hold; None for a network of one batch size.
        gpus: whether the model runs on GPUs.
    """
    image, mask = io.inputs[0], io.outputs[0]
    flag = "--gpus all " if gpus else ""
    batch, height, width, _ = image.shape
    if not height or not width:
        height, width = preprocess.seen_size or _SIZE_WITHOUT_ANY
    return f"""# Triton model repository: {name}

`{name}/1/model.onnx` takes RGB images and gives masks of class ids; normalisation is inside.

| tensor | type | shape |
|---|---|---|
| `{image.name}` | {image.dtype} | {_shape(image.shape)} |
| `{mask.name}` | {mask.dtype} | {_shape(mask.shape)} |

Class names by id: `{name}/{LABELS}`, and the parameter `class_names` of the model's configuration.

## What a client does itself

{_steps(preprocess, batch, largest)}

## Server and request

Start the server (TAG: a release of NVIDIA's Triton image):

    docker run --rm {flag}-p 8000:8000 -p 8001:8001 -p 8002:8002 -v "$PWD":/models:ro \\
      nvcr.io/nvidia/tritonserver:TAG-py3 tritonserver --model-repository=/models

It is ready when `curl -f localhost:8000/v2/models/{name}/ready` succeeds.
{_told(batch)}, with `pip install tritonclient[http]`:

    import numpy as np, tritonclient.http as triton
    image = np.zeros(({batch or 1}, {height}, {width}, 3), np.uint8)
    sent = triton.InferInput("{image.name}", image.shape, "UINT8")
    sent.set_data_from_numpy(image)
    mask = triton.InferenceServerClient("localhost:8000").infer("{name}", [sent]).as_numpy("{mask.name}")
"""


def _told(batch: int | None) -> str:
    return "One image" if batch in (None, 1) else f"A batch of {batch}"


def _steps(preprocess: Preprocess, batch: int | None, largest: int | None) -> str:
    """A Markdown list, in the order in which the steps are done."""
    steps = ["Decode the image to RGB, 8 bits a channel."]
    if preprocess.value_range is not None:
        low, high = preprocess.value_range
        steps = [
            f"Map raw values v of one channel to 8 bits: `round(clip((v - {low:g}) / {high - low:g} * 255, 0, 255))`, "
            "in three equal channels; a NaN has no place there. Images of three 8-bit channels stay as they are."
        ]
    if preprocess.size is not None:
        steps.append(
            f"Resize the image to {_sides(preprocess.size)} (height × width), bilinear with antialiasing as Pillow's "
            "`BILINEAR`. The mask has that size too: bring it back by nearest neighbour."
        )
    if preprocess.window is not None:
        steps.append(_window_step(preprocess.window))
    if batch is not None:
        steps.append(
            f"Send exactly {batch} image{'s' if batch > 1 else ''} a request; fill what is missing with the last."
        )
    elif largest is not None:
        steps.append(f"Send 1 to {largest} images of one size a request.")
    return "\n".join(f"- {step}" for step in steps)


def _window_step(window: Window) -> str:
    strides = tuple(max(1, int(side * (1 - window.overlap))) for side in window.size)
    return (
        f"Cut windows of {_sides(window.size)} (height × width), one every {strides[0]} rows and {strides[1]} columns, the "
        "last moved back to end with the image; pad a smaller image around with "
        f"{'its mean colour' if window.padding == 'constant' else f'its own pixels ({window.padding})'}. Where windows "
        "overlap, keep of each mask what lies nearest to its middle. This server gives masks and cannot blend the logits: "
        f"the artifact's `Segmenter` and its MONAI workflow blend them ({window.blending}), so near seams masks differ."
    )


def _sides(size: tuple[int, int]) -> str:
    return f"{size[0]}×{size[1]}"


def _shape(sizes: tuple[int | None, ...]) -> str:
    return "(" + ", ".join("any" if size is None else str(size) for size in sizes) + ")"
