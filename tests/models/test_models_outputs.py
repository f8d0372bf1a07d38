"""What counts as logits, and the wrapper that brings them to the input's size."""

from collections import OrderedDict
from types import SimpleNamespace

import pytest
import torch

from dropclass_deploy.core.errors import ModelError
from dropclass_deploy.models import logits_of

LOGITS = torch.zeros(1, 2, 3, 4)


@pytest.mark.parametrize(
    "output",
    [
        LOGITS,
        {"out": LOGITS, "aux": None},
        OrderedDict(aux=None, out=LOGITS),
        {"logits": LOGITS},
        SimpleNamespace(logits=LOGITS),
    ],
    ids=["tensor", "dict", "OrderedDict", "dict logits", "object"],
)
def test_logits_are_found_and_handed_through(output: object):
    assert logits_of(output) is LOGITS


@pytest.mark.parametrize(
    ("output", "found"),
    [
        (None, "NoneType"),
        ([LOGITS], "list"),
        ((LOGITS,), "tuple"),
        ({}, "dict"),
        ({"out": None}, "dict"),
        (SimpleNamespace(logits=3), "SimpleNamespace"),
        (LOGITS[0], r"a tensor of shape \(2, 3, 4\)"),
        ({"out": LOGITS.flatten()}, r"a tensor of shape \(24,\)"),
        ("logits", "str"),
    ],
    ids=lambda value: type(value).__name__,
)
def test_anything_else_is_refused(output: object, found: str):
    with pytest.raises(ModelError, match=f"the model returned {found}; expected logits"):
        logits_of(output)
