"""Malformed bodies by the thousand: refused with a 4xx, never anything else, and the server goes on."""

from __future__ import annotations

import copy
import gzip
import json
from typing import Any

import numpy as np
import pytest
from hypothesis import HealthCheck, given, settings
from hypothesis import strategies as st
from v2_app import NAME, FakeServer, ask, expected_mask
from v2_bodies import binary_body, json_body, json_input, pixels

from dropclass_deploy.serving.server.refusals import RefusedRequestError
from dropclass_deploy.serving.server.settings import ServerSettings
from dropclass_deploy.serving.server.v2.tensors import InferRequest, read_request

SETTINGS = ServerSettings(max_body_bytes=65_536, max_json_bytes=32_768)
IMAGES = pixels(1, 2, 3, 3)
many = settings(max_examples=400, deadline=None, suppress_health_check=[HealthCheck.too_slow])

scalars = (
    st.none() | st.booleans() | st.integers() | st.floats() | st.text() | st.sampled_from([10**400, "\ud800", -0.0])
)
documents = st.recursive(
    scalars, lambda inner: st.lists(inner, max_size=5) | st.dictionaries(st.text(), inner, max_size=5), max_leaves=20
)
lengths = st.lists(
    st.integers(-5, 300).map(str) | st.text(st.characters(max_codepoint=255)) | st.just("9" * 40), max_size=2
)
codings = st.lists(st.sampled_from(["gzip", "deflate", "identity", "br", "gzip,gzip", ""]), max_size=2)


def outcome(body: bytes, length: list[str], encoding: list[str]) -> InferRequest | int:
    """A request, or the status of its refusal; any other exception fails the test."""
    try:
        return read_request(body, length, encoding, SETTINGS)
    except RefusedRequestError as error:
        refused = error
    assert 400 <= refused.status < 500
    assert refused.message.isprintable()
    return refused.status


# One for all examples: what a request leaves behind would meet the next one.
SERVER = FakeServer()


def check_all_well() -> None:
    answer = ask(SERVER, "POST", f"/v2/models/{NAME}/infer", json_body(IMAGES))
    assert answer.json()["outputs"][0]["data"] == expected_mask(IMAGES).ravel().tolist()


@many
@given(st.binary(max_size=300), lengths, codings)
def test_arbitrary_bytes(body, length, encoding):
    assert isinstance(outcome(body, length, encoding), int)


@many
@given(documents)
def test_arbitrary_json(document):
    assert isinstance(outcome(json.dumps(document).encode(), [], []), int)


@many
@given(documents, st.sampled_from(["inputs", "outputs", "parameters", "id"]))
def test_arbitrary_json_where_a_request_has_its_parts(document, place):
    request: dict[str, Any] = {"inputs": [json_input(IMAGES)]} | {place: document}
    found = outcome(json.dumps(request).encode(), [], [])
    # Parameters of no known meaning, ids and nothing are right; what is wrong inputs never is.
    assert isinstance(found, int) or place != "inputs"
    if isinstance(found, InferRequest):
        np.testing.assert_array_equal(found.images, IMAGES)


def places(value: Any, path: tuple[Any, ...] = ()) -> list[tuple[Any, ...]]:
    """Of everything in a document."""
    items = value.items() if isinstance(value, dict) else enumerate(value) if isinstance(value, list) else ()
    return [path, *(place for key, inner in items for place in places(inner, (*path, key)))]


REQUEST = {"inputs": [json_input(IMAGES, nested=True)], "outputs": [{"name": "mask"}]}
REQUIRED = [place for place in places(REQUEST) if place and place[0] == "inputs"]


@many
@given(st.sampled_from(REQUIRED), documents)
def test_a_right_request_with_one_thing_replaced(place, value):
    request: Any = copy.deepcopy(REQUEST)
    holder = request
    for key in place[:-1]:
        holder = holder[key]
    before, holder[place[-1]] = holder[place[-1]], value
    found = outcome(json.dumps(request).encode(), [], [])
    if isinstance(found, InferRequest):
        # Only one pixel's value may be another and still be right.
        assert type(value) is type(before)
        assert value == before or ("data" in place and type(value) is int and 0 <= value <= 255)


@many
@given(st.sampled_from(REQUIRED))
def test_a_right_request_with_one_thing_missing(place):
    request: Any = copy.deepcopy(REQUEST)
    holder = request
    for key in place[:-1]:
        holder = holder[key]
    del holder[place[-1]]
    assert outcome(json.dumps(request).encode(), [], []) == 400


BODY, HEADERS = binary_body(IMAGES)
LENGTH = int(HEADERS["Inference-Header-Content-Length"])


@many
@given(st.integers(0, len(BODY) - 1), st.integers(0, len(BODY) + 40), st.booleans())
def test_a_binary_request_that_is_cut_or_split_elsewhere(cut, length, packed):
    body = gzip.compress(BODY) if packed else BODY
    encoding = ["gzip"] if packed else []
    assert outcome(body[: min(cut, len(body) - 1)], [str(LENGTH)], encoding) == 400
    if length != LENGTH:
        assert outcome(body, [str(length)], encoding) == 400


@many
@given(st.integers(0, LENGTH - 1), st.integers(0, 255))
def test_a_binary_request_with_one_byte_of_its_head_changed(position, value):
    body = bytearray(BODY)
    body[position] = value
    found = outcome(bytes(body), [str(LENGTH)], [])
    if isinstance(found, InferRequest):
        assert found.images.tobytes() == IMAGES.tobytes()


@pytest.mark.parametrize("opening", [b"[", b'{"a":', b'[{"inputs":'], ids=str)
@pytest.mark.parametrize("depth", [17, 1000, 2500])
def test_deep_nesting(opening, depth):
    assert outcome(opening * depth, [], []) == 400
    closed = opening * depth + b"1" + (b"}]" if b"[{" in opening else b"]" if opening == b"[" else b"}") * depth
    assert outcome(closed, [], []) in (400, 413)


@settings(max_examples=100, deadline=None)
@given(st.binary(max_size=200) | documents.map(lambda found: json.dumps(found).encode()), lengths, codings)
def test_the_route_never_fails(body, length, encoding):
    headers = {"Content-Encoding": ",".join(encoding)}
    if length:
        headers["Inference-Header-Content-Length"] = length[0]
    answer = ask(SERVER, "POST", f"/v2/models/{NAME}/infer", body, headers)
    assert 400 <= answer.status < 500
    assert list(answer.json()) == ["error"]
    check_all_well()
