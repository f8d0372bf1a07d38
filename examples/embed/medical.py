"""Slices in, a segmentation of the same geometry out: DICOM → DICOM SEG, NIfTI → NIfTI.

    python medical.py ARTIFACT SLICE.dcm [SLICE.dcm …] SEG.dcm
    python medical.py ARTIFACT VOLUME.nii.gz MASK.nii.gz

Needs onnxruntime, numpy and pillow, and highdicom (DICOM) or nibabel (NIfTI). Everything about the network is read from
its own metadata. No medical device: nothing here is fit for diagnosis.
"""

from __future__ import annotations

import argparse
import json
import sys
from pathlib import Path
from typing import Any, NoReturn

import numpy as np
import onnxruntime
from PIL import Image

PRIVATE_SCHEME = "99LABELMAP"
"""Coding scheme of classes without a SNOMED CT code; DICOM keeps names that begin with 99 for private schemes."""


def refuse(reason: str) -> NoReturn:
    """End with one line on stderr and exit code 2."""
    print(reason, file=sys.stderr)
    raise SystemExit(2)


class Network:
    """``models/model.mask.onnx`` of an artifact, fed with raw slices of one channel."""

    def __init__(self, artifact: Path) -> None:
        path = artifact / "models" / "model.mask.onnx"
        self._session = onnxruntime.InferenceSession(path, providers=["CPUExecutionProvider"])
        metadata = self._session.get_modelmeta().custom_metadata_map
        self.author = metadata["model_author"]
        preprocess, given = json.loads(metadata["preprocess"]), self._session.get_inputs()[0]
        if given.type != "tensor(uint8)":
            refuse(f"{path} takes images that are normalised already: export without --no-bake-preprocess")
        if "window" in preprocess:
            refuse(
                f"{path} takes one window of an image at a time: export without --window, or take the package's Segmenter"
            )
        self._size, self._range = preprocess["size"], preprocess.get("value_range")
        self._batch = given.shape[0]

    def __call__(self, values: np.ndarray) -> np.ndarray:
        """uint8 class ids (H, W) of raw values (H, W)."""
        image = self._windowed(values)
        height, width = self._size or values.shape
        batch = np.asarray(image.resize((width, height), Image.Resampling.BILINEAR))[None]
        if isinstance(self._batch, int):  # a fixed batch: the slice fills it
            batch = np.repeat(batch, self._batch, axis=0)
        ids = self._session.run(["mask"], {"image": batch})[0][0]  # of any integer type; (H, W), (H, W, 1) or (1, H, W)
        mask = Image.fromarray(ids.astype(np.uint8).reshape(height, width))
        return np.asarray(mask.resize(values.shape[::-1], Image.Resampling.NEAREST))

    def _windowed(self, values: np.ndarray) -> Image.Image:
        """RGB: raw values from low to high become 0 … 255, as in training."""
        if np.isnan(values).any():
            refuse(f"the slice holds NaN at {np.isnan(values).sum()} of {values.size} pixels: give them a value first")
        if self._range is None:
            if values.min() < 0 or values.max() > 255:
                refuse("the slice is deeper than 8 bits, and the network names no value_range for it")
            return Image.fromarray(values.astype(np.uint8)).convert("RGB")
        low, high = self._range
        shares = (values.astype(np.float64) - low) / (high - low) * 255
        return Image.fromarray(np.rint(np.clip(shares, 0, 255)).astype(np.uint8)).convert("RGB")


def nifti(network: Network, source: Path, target: Path) -> None:
    """Segment every axial slice of a volume; the mask has the volume's own axes and affine.

    NIfTI's axes point to Right, Anterior and Superior, in any order and direction that the affine says. A picture's
    columns go to the patient's Left and its rows to Posterior (DICOM's LPS). So the volume is turned to L, P, S, each
    slice transposed to (rows, columns), and the mask turned back.
    """
    import nibabel
    from nibabel import orientations

    image = nibabel.load(source)
    values = np.asarray(image.dataobj)
    if values.ndim not in (2, 3):
        refuse(f"{source} has {values.ndim} axes; a slice or a volume is needed")
    volume = values.reshape(*values.shape, *(1,) * (3 - values.ndim))
    to_lps = orientations.ornt_transform(orientations.io_orientation(image.affine), orientations.axcodes2ornt("LPS"))
    slices = orientations.apply_orientation(volume, to_lps)  # (columns, rows, slices)
    ids = np.stack([network(slices[..., index].T).T for index in range(slices.shape[2])], axis=2)
    back = orientations.ornt_transform(orientations.axcodes2ornt("LPS"), orientations.io_orientation(image.affine))
    mask = orientations.apply_orientation(ids, back).reshape(values.shape)
    header = image.header.copy()
    header.set_data_dtype(np.uint8)
    header["cal_min"] = header["cal_max"] = 0  # the display range of the source means nothing for ids
    nibabel.save(nibabel.Nifti1Image(np.ascontiguousarray(mask), image.affine, header), target)


def dicom(network: Network, artifact: Path, sources: list[Path], target: Path, background: str) -> None:
    """Segment the slices of one series into one label map; every class but ``background`` becomes a segment."""
    import highdicom
    import pydicom
    from pydicom.pixels import apply_rescale
    from pydicom.uid import generate_uid

    slices = [pydicom.dcmread(source) for source in sources]
    for source, each in zip(sources, slices, strict=True):
        if each.PhotometricInterpretation != "MONOCHROME2" or each.get("NumberOfFrames", 1) != 1:
            refuse(f"{source} is no single slice of one channel whose high values are bright")
    classes = json.loads((artifact / "label_map.json").read_text(encoding="utf-8"))["classes"]
    described = [row for row in classes if row["name"].casefold() != background.casefold()]
    numbers = np.zeros(256, np.uint8)  # class id → segment number; 0 is no segment
    for number, row in enumerate(described, start=1):
        numbers[row["id"]] = number
    # The modality's own units where the file has them (Hounsfield units of a CT), else the stored values.
    masks = [numbers[network(apply_rescale(each.pixel_array, each))] for each in slices]
    manifest = json.loads((artifact / "manifest.json").read_text(encoding="utf-8"))
    segmentation = highdicom.seg.Segmentation(
        source_images=slices,
        pixel_array=np.stack(masks),
        segmentation_type="LABELMAP",
        segment_descriptions=[_described(number, row, manifest) for number, row in enumerate(described, start=1)],
        series_instance_uid=generate_uid(),
        series_number=1,
        sop_instance_uid=generate_uid(),
        instance_number=1,
        manufacturer=network.author[:64],
        manufacturer_model_name=manifest["name"][:64],
        software_versions=manifest["versions"]["dropclass-deploy"],
        device_serial_number="none",
    )
    segmentation.save_as(target)


def _described(number: int, row: dict[str, Any], manifest: dict[str, Any]) -> Any:
    """A segment with the class's SNOMED CT code, or with a private code that says it has none."""
    import highdicom
    from pydicom.sr.codedict import codes

    concept = highdicom.sr.CodedConcept
    name = row["name"][:64]
    if code := row.get("snomed_ct"):
        kind = concept(value=code, scheme_designator="SCT", meaning=name)
    else:
        kind = concept(value=str(row["id"]), scheme_designator=PRIVATE_SCHEME, meaning=name)
    network = highdicom.AlgorithmIdentificationSequence(
        name=manifest["name"][:64],
        family=codes.DCM.ArtificialIntelligence,
        version=manifest["files"]["models/model.mask.onnx"],  # the sha256: which weights, exactly
    )
    return highdicom.seg.SegmentDescription(
        segment_number=number,
        segment_label=name,
        segmented_property_category=codes.SCT.AnatomicalStructure,
        segmented_property_type=kind,
        algorithm_type="AUTOMATIC",
        algorithm_identification=network,
        display_color=highdicom.color.CIELabColor.from_rgb(*row["colour"]),
    )


def main() -> None:
    """Read the command line and go by the name of the input."""
    parser = argparse.ArgumentParser(description=__doc__, formatter_class=argparse.RawDescriptionHelpFormatter)
    parser.add_argument("artifact", type=Path)
    parser.add_argument("sources", type=Path, nargs="+", metavar="SLICE")
    parser.add_argument("target", type=Path, metavar="OUTPUT")
    parser.add_argument("--background", default="background", help="the class that is no segment (DICOM)")
    given = parser.parse_args()
    network = Network(given.artifact)
    if given.sources[0].name.endswith((".nii", ".nii.gz")):
        if len(given.sources) > 1:
            parser.error("one NIfTI volume at a time")
        nifti(network, given.sources[0], given.target)
    else:
        dicom(network, given.artifact, given.sources, given.target, given.background)


if __name__ == "__main__":
    main()
