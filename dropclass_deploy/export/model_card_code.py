"""The lines of Python in the model card that run the exported file."""

from __future__ import annotations

from dropclass_deploy.export.options import ExportOptions
from dropclass_deploy.export.source import Source

_RUN_IT = """\
import numpy as np
import onnxruntime as ort
from PIL import Image

session = ort.InferenceSession("models/model.mask.onnx", providers=["CPUExecutionProvider"])
names = open("labels.txt", encoding="utf-8").read().splitlines()
image = Image.open("sample/image.png").convert("RGB"){resize}
batch = np.repeat(np.asarray(image)[None], {batch}, axis=0)  # uint8 (N, H, W, 3)
{normalise}mask = session.run(["mask"], {{"image": batch}})[0][0]{squeeze}  # {dtype} (H, W), class ids
expected = np.asarray(Image.open("sample/mask.png"))
print("pixels that differ from sample/mask.png:", int((mask != expected).sum()))
for index, pixels in enumerate(np.bincount(mask.ravel(), minlength=len(names))):
    print(names[index], pixels)
"""


def how_to_run(source: Source, options: ExportOptions) -> str:
    """Markdown with Python that runs the mask file on the sample, without this package."""
    # The sample of an artifact with a window is a window.
    size = None if source.preprocess.window else source.preprocess.size
    resize = f".resize({size[::-1]}, Image.Resampling.BILINEAR)" if size else ""
    form = options.mask_format
    code = _RUN_IT.format(
        resize=resize,
        batch=options.shape[0] or 1,
        normalise="" if form.bake_preprocess else _normalising_line(source),
        squeeze={"NHW": "", "NHWC": "[..., 0]", "NCHW": "[0]"}[form.layout],
        dtype=form.dtype,
    )
    text = f"From this folder, with `pip install onnxruntime numpy pillow`:\n\n```python\n{code}```\n"
    if size:
        text += (
            f"\nThe mask comes at {size[0]}×{size[1]}. For a mask at the image's own size, resize the logits of "
            "`models/model.onnx` (bilinear, half-pixel centres) and take the argmax there; never stretch a mask.\n"
        )
    return text


def _normalising_line(source: Source) -> str:
    """Python that turns the uint8 batch into the network's own input, in float32 as the export does it."""
    scale, shift = (
        f"np.float32({[float(value) for value in values]})" for values in source.preprocess.scale_and_shift()
    )
    return f"batch = np.ascontiguousarray((batch * {scale} + {shift}).transpose(0, 3, 1, 2))\n"
