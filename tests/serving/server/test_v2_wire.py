"""The wire format on its own: bytes by hand, and against the objects of Triton's client."""

from __future__ import annotations

import gzip
import json
import zlib

import numpy as np
import pytest
from v2_bodies import binary_body, json_body, json_input, pixels

from dropclass_deploy.serving.server.settings import ServerSettings
from dropclass_deploy.serving.server.v2.encodings import accepted_coding
from dropclass_deploy.serving.server.v2.reply import encode_reply, numbers
from dropclass_deploy.serving.server.v2.tensors import InferRequest, read_request

SETTINGS = ServerSettings()
IMAGES = pixels(2, 3, 5, 3)


def reading(body: bytes, headers: dict[str, str] | None = None) -> InferRequest:
    length = (headers or {}).get("Inference-Header-Content-Length")
    return read_request(body, [] if length is None else [length], [], SETTINGS)


@pytest.mark.parametrize("nested", [False, True], ids=["flat", "nested"])
def test_json_values_are_row_major(nested):
    found = reading(json_body(IMAGES, nested=nested, id="seven"))
    np.testing.assert_array_equal(found.images, IMAGES)
    assert (found.id, found.binary, found.timeout_s) == ("seven", False, None)


def test_a_hand_written_binary_request():
    head = (
        b'{"inputs":[{"name":"image","shape":[1,1,2,3],"datatype":"UINT8","parameters":{"binary_data_size":6}}],'
        b'"outputs":[{"name":"mask","parameters":{"binary_data":true}}],"parameters":{"timeout":1500000}}'
    )
    found = read_request(head + b"\x00\x01\x02\xfd\xfe\xff", [str(len(head))], [], SETTINGS)
    assert found.images.tolist() == [[[[0, 1, 2], [253, 254, 255]]]]
    assert found.binary
    assert found.timeout_s == 1.5


def test_binary_images_are_not_copied():
    body, headers = binary_body(IMAGES)
    images = reading(body, headers).images
    assert np.shares_memory(images, np.frombuffer(body, np.uint8))
    assert not images.flags.writeable


@pytest.mark.parametrize(
    ("outputs", "binary_data_output", "binary"),
    [
        (None, None, False),
        (None, True, True),
        ([], True, True),
        ([{"name": "mask"}], None, False),
        ([{"name": "mask"}], True, True),
        ([{"name": "mask", "parameters": {"binary_data": False}}], True, False),
        ([{"name": "mask", "parameters": {"binary_data": True}}], False, True),
    ],
)
def test_an_output_says_itself_how_it_comes_else_the_request_does(outputs, binary_data_output, binary):
    rest = {} if outputs is None else {"outputs": outputs}
    if binary_data_output is not None:
        rest["parameters"] = {"binary_data_output": binary_data_output}
    assert reading(json_body(IMAGES, **rest)).binary is binary


@pytest.mark.parametrize(
    ("timeout", "seconds"), [(0, None), (1, 1e-6), ("2500000", 2.5), ("0", None), (2**64 - 1, (2**64 - 1) / 1e6)]
)
def test_a_timeout_is_in_microseconds(timeout, seconds):
    assert reading(json_body(IMAGES, parameters={"timeout": timeout})).timeout_s == seconds


def test_parameters_of_no_known_meaning_and_nulls_are_taken():
    body = {"id": None, "inputs": [json_input(IMAGES) | {"parameters": None}], "outputs": None}
    body["parameters"] = {"priority": 1, "mine": "yours", "sequence_id": 0, "sequence_start": False}
    np.testing.assert_array_equal(reading(json.dumps(body).encode()).images, IMAGES)


@pytest.mark.parametrize("text", [r"\\", r"[[[[\"[[[[[[[[[[[[[[[[[[[", r"{{\\\"{{", "[" * 500, r"a\\\\"])
def test_brackets_and_quotes_within_strings_are_no_nesting(text):
    body = json_body(IMAGES, id="@").replace(b"@", text.encode())
    assert reading(body).id == json.loads(f'"{text}"')


@pytest.mark.parametrize(("coding", "shrunk"), [("gzip", gzip.compress), ("deflate", zlib.compress)])
def test_a_compressed_body_is_read(coding, shrunk):
    body, headers = binary_body(IMAGES)
    found = read_request(shrunk(body), [headers["Inference-Header-Content-Length"]], [coding.upper()], SETTINGS)
    np.testing.assert_array_equal(found.images, IMAGES)


@pytest.mark.parametrize(
    ("field", "coding"),
    [
        ("", None),
        ("gzip", "gzip"),
        ("deflate", "deflate"),
        ("deflate, gzip", "gzip"),
        ("gzip;q=0.2, deflate;q=0.9", "deflate"),
        ("GZIP ; Q=1.000", "gzip"),
        ("gzip;q=0", None),
        ("gzip;q=nonsense, br", None),
        ("identity", None),
        ("*", None),
    ],
)
def test_the_coding_that_a_client_wants(field, coding):
    assert accepted_coding(field) == coding


@pytest.mark.parametrize("highest", [0, 9, 10, 99, 100, 255])
def test_numbers_are_json(highest):
    values = np.arange(highest + 1, dtype=np.uint8)
    assert json.loads(b"[" + numbers(values) + b"]") == list(range(highest + 1))


def request_of(binary: bool, request_id: str | None = None) -> InferRequest:
    return InferRequest(id=request_id, images=IMAGES, binary=binary, timeout_s=None)


def test_a_json_reply_by_the_protocols_text():
    masks = list(np.array([[[0, 1], [2, 200]], [[3, 4], [5, 6]]], np.uint8))
    reply = encode_reply("m", "1", request_of(binary=False, request_id='"data":[] \ud83d\ude00'), masks)
    assert json.loads(reply.content) == {
        "model_name": "m",
        "model_version": "1",
        "id": '"data":[] 😀',
        "outputs": [{"name": "mask", "datatype": "UINT8", "shape": [2, 2, 2], "data": [0, 1, 2, 200, 3, 4, 5, 6]}],
    }
    assert reply.headers["Content-Type"] == "application/json"
    assert "Inference-Header-Content-Length" not in reply.headers


def test_a_binary_reply_by_the_protocols_text():
    masks = list(np.array([[[0, 1], [2, 255]]], np.uint8))
    reply = encode_reply("m", "1", request_of(binary=True), masks)
    length = int(reply.headers["Inference-Header-Content-Length"])
    assert json.loads(reply.content[:length]) == {
        "model_name": "m",
        "model_version": "1",
        "outputs": [{"name": "mask", "datatype": "UINT8", "shape": [1, 2, 2], "parameters": {"binary_data_size": 4}}],
    }
    assert reply.content[length:] == b"\x00\x01\x02\xff"
    assert reply.headers["Content-Type"] == "application/octet-stream"


def test_a_compressed_reply_is_what_it_says():
    masks = list(pixels(2, 8, 8))
    plain = encode_reply("m", "1", request_of(binary=True), masks)
    for coding, inflated in (("gzip", gzip.decompress), ("deflate", zlib.decompress)):
        packed = encode_reply("m", "1", request_of(binary=True), masks, coding)
        assert packed.headers["Content-Encoding"] == coding
        assert inflated(packed.content) == plain.content
        # Of the JSON before compression, as Triton's client takes it.
        assert packed.headers["Inference-Header-Content-Length"] == plain.headers["Inference-Header-Content-Length"]
