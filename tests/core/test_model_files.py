import pytest

from dropclass_deploy.core.errors import UserError
from dropclass_deploy.core.model_files import model_file


@pytest.mark.parametrize(
    ("head", "precision", "name"),
    [
        ("logits", "fp32", "models/model.onnx"),
        ("dense", "fp32", "models/model.mask.onnx"),
        ("sparse", "fp32", "models/model.sparse.mask.onnx"),
        ("dense", "fp16", "models/model.fp16.mask.onnx"),
        ("sparse", "int8", "models/model.int8.sparse.mask.onnx"),
        ("logits", "mixed", "models/model.mixed.onnx"),
    ],
)
def test_files_are_named_as_the_artifact_format_draws_them(head: str, precision: str, name: str) -> None:
    assert model_file(head, precision) == name


def test_an_unknown_precision_or_head_is_refused() -> None:
    with pytest.raises(UserError, match=r"no precision 'int4'.*expected one of fp32"):
        model_file("dense", "int4")
    with pytest.raises(UserError, match="no mask head 'thin'"):
        model_file("thin")
