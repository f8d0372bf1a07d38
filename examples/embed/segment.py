"""python segment.py MODEL.mask.onnx IMAGE MASK.png: class ids as an indexed PNG in the colours of the model."""

import json
import sys

import numpy as np
import onnxruntime
from PIL import Image

session = onnxruntime.InferenceSession(sys.argv[1], providers=["CPUExecutionProvider"])
given, metadata = session.get_inputs()[0], session.get_modelmeta().custom_metadata_map
if given.type != "tensor(uint8)" or "window" in (preprocess := json.loads(metadata["preprocess"])):
    sys.exit(print(f"{sys.argv[1]} wants normalised floats, or windows: see the README", file=sys.stderr) or 2)
image = Image.open(sys.argv[2]).convert("RGB")
small = image.resize((preprocess["size"] or image.size[::-1])[::-1], Image.Resampling.BILINEAR)
batch = np.stack([small] * (given.shape[0] if isinstance(given.shape[0], int) else 1))  # uint8 (N, H, W, 3)
mask = Image.fromarray(session.run(["mask"], {"image": batch})[0][0].astype(np.uint8).reshape(batch.shape[1:3]))
mask.putpalette(np.ravel(json.loads(metadata["palette"])).tolist())
mask.resize(image.size, Image.Resampling.NEAREST).save(sys.argv[3])
