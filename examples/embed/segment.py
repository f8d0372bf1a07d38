"""python segment.py MODEL.mask.onnx IMAGE MASK.png: class ids as an indexed PNG in the colours of the model."""

import json
import sys

import numpy as np
import onnxruntime
from PIL import Image

session = onnxruntime.InferenceSession(sys.argv[1], providers=["CPUExecutionProvider"])
metadata = session.get_modelmeta().custom_metadata_map
image = Image.open(sys.argv[2]).convert("RGB")
size = json.loads(metadata["preprocess"])["size"] or image.size[::-1]  # (height, width)
batch = np.asarray(image.resize(size[::-1], Image.Resampling.BILINEAR))[None]  # uint8 (1, H, W, 3)
mask = Image.fromarray(session.run(["mask"], {"image": batch})[0][0]).resize(image.size, Image.Resampling.NEAREST)
mask.putpalette(np.ravel(json.loads(metadata["palette"])).tolist())
mask.save(sys.argv[3])
