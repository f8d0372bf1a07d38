"""The medical example: pixel by pixel, with the geometry, against the network run by hand."""

from __future__ import annotations

import itertools
import json
from pathlib import Path
from types import SimpleNamespace

import numpy as np
import onnxruntime
import pytest
import torch
from isolated import run_alone
from torch import nn

from dropclass_deploy.core.classes import ClassTable
from dropclass_deploy.core.preprocess import Preprocess, window
from dropclass_deploy.export import ExportOptions, export_artifact

highdicom = pytest.importorskip("highdicom", reason="highdicom is not installed (the extra 'medical')")
nibabel = pytest.importorskip("nibabel", reason="nibabel is not installed (the extra 'medical')")
pydicom = pytest.importorskip("pydicom", reason="pydicom is not installed (the extra 'medical')")

# Both libraries tell about their own future in warnings.
pytestmark = pytest.mark.filterwarnings("ignore::UserWarning:(highdicom|pydicom)")

RANGE = (-200.0, 300.0)
SLICES, ROWS, COLUMNS = 3, 20, 28
SPACING = {"x": 0.7, "y": 0.8, "z": 2.5}


@pytest.fixture(scope="module")
def medical(tmp_path_factory: pytest.TempPathFactory) -> SimpleNamespace:
    """An artifact with a value range, raw slices (3, 20, 28) in LPS, and the mask that its file gives for them."""
    torch.manual_seed(2)
    network = nn.Conv2d(3, 3, 3, padding=1)
    rng = np.random.default_rng(4)
    # Smooth, unlike its mirror images, and beyond the range at both ends.
    rows, columns = np.mgrid[0:ROWS, 0:COLUMNS]
    volume = np.stack([40 * rows - 22 * columns + 60 * z + rng.normal(0, 40, rows.shape) for z in range(SLICES)])
    volume = volume.round().astype(np.int16)
    images = np.stack([window(each, RANGE) for each in volume])
    with torch.no_grad():
        pixels = torch.from_numpy(Preprocess().normalise(images))
        network.bias -= network(pixels).mean(dim=(0, 2, 3))
    artifact = export_artifact(
        network,
        tmp_path_factory.mktemp("medical") / "organs",
        classes=ClassTable(names=("background", "liver", "lesion"), rare=(2,)),
        preprocess=Preprocess(value_range=RANGE),
        options=ExportOptions(codes={"liver": "10200004"}),
    )
    session = onnxruntime.InferenceSession(artifact / "models/model.mask.onnx", providers=["CPUExecutionProvider"])
    mask = session.run(["mask"], {"image": images})[0]
    assert np.bincount(mask.ravel(), minlength=3).min() > 100
    return SimpleNamespace(artifact=artifact, volume=volume, mask=mask)


def ct_slice(values: np.ndarray, index: int, study: SimpleNamespace) -> pydicom.Dataset:
    """A CT slice in LPS whose stored values are Hounsfield units + 1024."""
    each = pydicom.Dataset()
    each.SOPClassUID, each.SOPInstanceUID = pydicom.uid.CTImageStorage, f"{study.series}.{index + 1}"
    each.StudyInstanceUID, each.SeriesInstanceUID, each.FrameOfReferenceUID = study.study, study.series, study.frame
    each.Modality, each.PatientID, each.PatientName, each.StudyID = "CT", "7", "Test^Case", "1"
    each.PatientBirthDate = each.PatientSex = each.AccessionNumber = each.ReferringPhysicianName = ""
    each.StudyDate, each.StudyTime, each.SeriesNumber, each.InstanceNumber = "20260101", "120000", 1, index + 1
    each.ImageOrientationPatient, each.ImagePositionPatient = [1, 0, 0, 0, 1, 0], [-5.0, -9.0, SPACING["z"] * index]
    each.PixelSpacing, each.SliceThickness = [SPACING["y"], SPACING["x"]], SPACING["z"]
    each.Rows, each.Columns = values.shape
    each.SamplesPerPixel, each.PhotometricInterpretation, each.PixelRepresentation = 1, "MONOCHROME2", 0
    each.BitsAllocated, each.BitsStored, each.HighBit = 16, 16, 15
    each.RescaleIntercept, each.RescaleSlope = -1024, 1
    each.PixelData = (values.astype(np.int32) + 1024).astype("<u2").tobytes()
    each.file_meta = pydicom.dataset.FileMetaDataset()
    each.file_meta.TransferSyntaxUID = pydicom.uid.ExplicitVRLittleEndian
    each.file_meta.MediaStorageSOPClassUID, each.file_meta.MediaStorageSOPInstanceUID = (
        each.SOPClassUID,
        each.SOPInstanceUID,
    )
    return each


def test_a_dicom_series_becomes_a_label_map(medical: SimpleNamespace, tmp_path: Path) -> None:
    uids = SimpleNamespace(**{name: pydicom.uid.generate_uid() for name in ("study", "series", "frame")})
    slices = [ct_slice(values, index, uids) for index, values in enumerate(medical.volume)]
    for index, each in enumerate(slices):
        each.save_as(tmp_path / f"{index}.dcm", enforce_file_format=True)
    names = [f"{index}.dcm" for index in range(SLICES)]
    done = run_alone(tmp_path, "medical.py", medical.artifact, *names, "seg.dcm")
    assert done.returncode == 0, done.stderr
    seg = highdicom.seg.segread(tmp_path / "seg.dcm")
    assert seg.segmentation_type == highdicom.seg.SegmentationTypeValues.LABELMAP
    read = seg.get_pixels_by_source_instance([each.SOPInstanceUID for each in slices], combine_segments=True)
    # background is no segment; liver and lesion have the numbers 1 and 2, which here are their ids too
    np.testing.assert_array_equal(read, medical.mask)
    liver, lesion = (seg.get_segment_description(number) for number in (1, 2))
    assert (liver.segment_label, lesion.segment_label) == ("liver", "lesion")
    assert (liver.segmented_property_type.value, liver.segmented_property_type.scheme_designator) == ("10200004", "SCT")
    assert lesion.segmented_property_type.scheme_designator == "99LABELMAP"
    assert lesion.segmented_property_type.meaning == "lesion"
    assert seg.FrameOfReferenceUID == uids.frame
    weights = json.loads((medical.artifact / "manifest.json").read_text())["files"]["models/model.mask.onnx"]
    assert liver.algorithm_identification.version == weights


def test_an_inverted_slice_is_refused(medical: SimpleNamespace, tmp_path: Path) -> None:
    uids = SimpleNamespace(**{name: pydicom.uid.generate_uid() for name in ("study", "series", "frame")})
    each = ct_slice(medical.volume[0], 0, uids)
    each.PhotometricInterpretation = "MONOCHROME1"
    each.save_as(tmp_path / "inverted.dcm", enforce_file_format=True)
    done = run_alone(tmp_path, "medical.py", medical.artifact, "inverted.dcm", "seg.dcm")
    assert done.returncode == 2
    assert done.stderr.strip() == "inverted.dcm is no single slice of one channel whose high values are bright"


def placed(lps: np.ndarray, axes: str) -> np.ndarray:
    """An LPS stack (slices, rows, columns) as an array whose axes point where ``axes`` says, such as "RAS"."""
    source = [next(n for n, letters in enumerate(("SI", "PA", "LR")) if letter in letters) for letter in axes]
    array = lps.transpose(source)
    return np.flip(array, [n for n, letter in enumerate(axes) if letter in "RAI"])


def affine_of(axes: str) -> np.ndarray:
    """Voxel → millimetres (RAS) of such an array; the corner's place does not matter here."""
    affine = np.diag([0.0, 0.0, 0.0, 1.0])
    for column, letter in enumerate(axes):
        row = next(n for n, letters in enumerate(("RL", "AP", "SI")) if letter in letters)
        affine[row, column] = SPACING["xyz"[row]] * (1 if letter in "RAS" else -1)
    affine[:3, 3] = 11.0, -7.0, 3.0
    return affine


@pytest.mark.parametrize("axes", ["RAS", "LPS", "LAI", "PSR", "SLA"])
def test_a_nifti_volume_keeps_its_axes_and_affine(medical: SimpleNamespace, tmp_path: Path, axes: str) -> None:
    affine = affine_of(axes)
    assert "".join(nibabel.aff2axcodes(affine)) == axes
    values = placed(medical.volume, axes)
    nibabel.save(nibabel.Nifti1Image(values, affine), tmp_path / "ct.nii.gz")
    done = run_alone(tmp_path, "medical.py", medical.artifact, "ct.nii.gz", "mask.nii.gz")
    assert done.returncode == 0, done.stderr
    mask = nibabel.load(tmp_path / "mask.nii.gz")
    assert mask.get_data_dtype() == np.uint8
    np.testing.assert_array_equal(mask.affine, nibabel.load(tmp_path / "ct.nii.gz").affine)
    np.testing.assert_array_equal(np.asarray(mask.dataobj), placed(medical.mask, axes))


def test_no_mirror_image_would_pass(medical: SimpleNamespace) -> None:
    for axes in itertools.product("RL", "AP", "SI"):
        if "".join(axes) != "RAS":
            assert (placed(medical.mask, "RAS") != placed(medical.mask, "".join(axes))).mean() > 0.1


def test_a_single_slice_stays_one(medical: SimpleNamespace, tmp_path: Path) -> None:
    values = placed(medical.volume[:1], "RAS")[..., 0]
    nibabel.save(nibabel.Nifti1Image(values, affine_of("RAS")), tmp_path / "slice.nii")
    done = run_alone(tmp_path, "medical.py", medical.artifact, "slice.nii", "mask.nii")
    assert done.returncode == 0, done.stderr
    mask = np.asarray(nibabel.load(tmp_path / "mask.nii").dataobj)
    np.testing.assert_array_equal(mask, placed(medical.mask[:1], "RAS")[..., 0])


def test_deep_slices_need_a_value_range(small: SimpleNamespace, medical: SimpleNamespace, tmp_path: Path) -> None:
    nibabel.save(nibabel.Nifti1Image(placed(medical.volume, "RAS"), affine_of("RAS")), tmp_path / "ct.nii")
    done = run_alone(tmp_path, "medical.py", small.dynamic, "ct.nii", "mask.nii")
    assert done.returncode == 2
    assert done.stderr.strip() == "the slice is deeper than 8 bits, and the network names no value_range for it"
