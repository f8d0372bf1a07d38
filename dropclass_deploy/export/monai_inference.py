"""``configs/inference.json``: the artifact as a MONAI inference workflow, made of MONAI's parts and no code of ours.

The network is ``models/model.onnx`` in ONNX Runtime, behind a ``torch.nn.Module`` that the configuration itself defines.
``python -m monai.bundle run --config_file configs/inference.json``, said in the artifact's folder (``pip install
'monai[fire,ignite]' onnxruntime``), segments the sample; ``--images`` and ``--output_dir`` name others. The evaluator is
MONAI's, and needs pytorch-ignite: without it the workflow initialises with the evaluator left out, and ``run`` ends with
the missing module's name.

Source of the names: MONAI's ``bundle/properties.py`` (``InferProperties``, ``MetaProperties``), tried with MONAI 1.6.1.
"""

from __future__ import annotations

from typing import Any

from dropclass_deploy.core.preprocess import Preprocess
from dropclass_deploy.core.sliding_window import SIGMA_SCALE, WINDOWS_AT_ONCE, Window
from dropclass_deploy.export.shapes import Shape

# MONAI loads pictures as (width, height) and saves them so; the network's planes are (height, width).
_SWAP_AXES = [0, 2, 1]


def inference_config(preprocess: Preprocess, shape: Shape) -> dict[str, Any]:
    """``inference.json`` as a dict.

    Args:
        preprocess: of the network; a fixed size is applied to the image, and the mask then has that size; a window slides
            over the image.
        shape: (N, H, W) of the ONNX input; a fixed batch that images or windows leave short is filled with the last.
    """
    # Windows of one image share a batch; images that windows are cut from have sizes of their own, and do not.
    batch = 1 if preprocess.window else shape[0] or 1
    return {
        "imports": ["$import onnxruntime", "$import PIL.Image as pictures", "$from importlib.util import find_spec"],
        "bundle_root": ".",
        "device": "$torch.device('cpu')",
        "dataset_dir": "$@bundle_root + '/sample'",
        "images": "$[@dataset_dir + '/image.png']",
        "output_dir": "$@bundle_root + '/eval'",
        "session": {
            "_target_": "onnxruntime.InferenceSession",
            "path_or_bytes": "$@bundle_root + '/models/model.onnx'",
            "providers": ["CPUExecutionProvider"],
        },
        "network_def": _network(shape[0]),
        "preprocessing": _preprocessing(preprocess),
        "dataset": {
            "_target_": "monai.data.Dataset",
            "data": "$[{'image': path} for path in @images]",
            "transform": "@preprocessing",
        },
        "dataloader": {"_target_": "monai.data.DataLoader", "dataset": "@dataset", "batch_size": batch},
        "inferer": _inferer(preprocess.window, shape[0]),
        "postprocessing": _postprocessing(),
        "evaluator": {
            "_target_": "monai.engines.SupervisedEvaluator",
            "_disabled_": "$find_spec('ignite') is None",
            "device": "@device",
            "val_data_loader": "@dataloader",
            "network": "@network_def",
            "inferer": "@inferer",
            "postprocessing": "@postprocessing",
        },
        "run": ["$__import__('ignite')", "$@evaluator.run()"],
    }


def _network(batch: int | None) -> str:
    """The module: normalised planes in, logits out; a session of a fixed batch gets the last image again and again."""
    planes, logits = "image.cpu().numpy()", "session.run(['logits'], {'image': %s})[0]"
    if batch is not None:
        planes = f"numpy.pad({planes}, [(0, {batch} - len(image)), (0, 0), (0, 0), (0, 0)], 'edge')"
        logits += "[:len(image)]"
    return (
        "$type('OnnxNetwork', (torch.nn.Module,), {'forward': lambda self, image, session=@session: "
        f"monai.utils.convert_to_dst_type({logits % planes}, image)[0]}})()"
    )


def _inferer(window: Window | None, batch: int | None) -> dict[str, Any]:
    if window is None:
        return {"_target_": "monai.inferers.SimpleInferer"}
    return {
        "_target_": "monai.inferers.SlidingWindowInferer",
        "roi_size": list(window.size),
        "sw_batch_size": batch or WINDOWS_AT_ONCE,
        "overlap": window.overlap,
        "mode": window.blending,
        "sigma_scale": SIGMA_SCALE,
        "padding_mode": window.padding,
    }


def _preprocessing(preprocess: Preprocess) -> dict[str, Any]:
    # In units of the stored pixels, 0 … 255.
    subtrahend = [255 * mean for mean in preprocess.mean]
    divisor = [255 * std for std in preprocess.std]
    return _compose(
        [
            {
                "_target_": "monai.transforms.LoadImaged",
                "keys": "image",
                "reader": "PILReader",
                "converter": _converter(preprocess),
            },
            {"_target_": "monai.transforms.EnsureChannelFirstd", "keys": "image", "channel_dim": -1},
            {"_target_": "monai.transforms.Transposed", "keys": "image", "indices": _SWAP_AXES},
            {
                "_target_": "monai.transforms.NormalizeIntensityd",
                "keys": "image",
                "subtrahend": subtrahend,
                "divisor": divisor,
                "channel_wise": True,
            },
        ]
    )


def _converter(preprocess: Preprocess) -> str:
    """Pillow image → RGB image of the network's size; raw values of one channel are windowed (``core.preprocess``)."""
    picture = "image.convert('RGB')"
    if preprocess.value_range is not None:
        low, high = preprocess.value_range
        shares = f"(numpy.asarray(image, 'float64') - {low!r}) / {high - low!r} * 255"
        grey = f"pictures.fromarray(numpy.rint(numpy.clip({shares}, 0, 255)).astype('uint8'))"
        picture = f"({grey} if image.mode[0] in 'ILF' else image).convert('RGB')"
    if preprocess.size is not None:
        height, width = preprocess.size
        picture += f".resize(({width}, {height}), pictures.Resampling.BILINEAR)"
    return f"$lambda image: {picture}"


def _postprocessing() -> dict[str, Any]:
    return _compose(
        [
            {"_target_": "monai.transforms.AsDiscreted", "keys": "pred", "argmax": True},
            {"_target_": "monai.transforms.Transposed", "keys": "pred", "indices": _SWAP_AXES},
            {
                "_target_": "monai.transforms.SaveImaged",
                "keys": "pred",
                "output_dir": "@output_dir",
                "output_ext": ".png",
                "output_postfix": "mask",
                "output_dtype": "$numpy.uint8",
                "resample": False,
                "separate_folder": False,
            },
        ]
    )


def _compose(transforms: list[dict[str, Any]]) -> dict[str, Any]:
    return {"_target_": "monai.transforms.Compose", "transforms": transforms}
