"""Each wrong request is refused, with a message that names what is wrong."""

from __future__ import annotations

import gzip
import json
import tracemalloc
import zlib
from typing import Any

import pytest
from v2_bodies import binary_body, binary_input, json_input, pixels

from dropclass_deploy.serving.server.refusals import RefusedRequestError
from dropclass_deploy.serving.server.settings import MIB, ServerSettings
from dropclass_deploy.serving.server.v2.tensors import read_request

SETTINGS = ServerSettings(
    max_body_bytes=4096, max_json_bytes=2048, max_json_depth=9, max_tensors=3, max_images=4, max_pixels=36
)
IMAGES = pixels(1, 2, 2, 3)


def refusal(
    body: bytes, length: list[str] | None = None, encoding: list[str] | None = None, settings: ServerSettings = SETTINGS
) -> tuple[int, str]:
    with pytest.raises(RefusedRequestError, match=r".") as caught:
        read_request(body, length or [], encoding or [], settings)
    assert len(caught.value.message) < 300
    caught.value.message.encode()
    return caught.value.status, caught.value.message


def inputs(**changes: Any) -> dict[str, Any]:
    return {"inputs": [json_input(IMAGES) | changes]}


def shaped(*shape: Any) -> dict[str, Any]:
    return inputs(shape=list(shape))


def data(value: Any) -> dict[str, Any]:
    return inputs(data=value)


DOCUMENTS = [
    ([], 400, "no object"),
    ({}, 400, "inputs: Field required"),
    ({"inputs": []}, 400, "none; expected exactly one"),
    ({"inputs": {}}, 400, "inputs"),
    ({"inputs": [1]}, 400, "inputs.0"),
    ({"inputs": [json_input(IMAGES)] * 2}, 400, "image, image; expected exactly one"),
    ({"inputs": [{}] * 4}, 400, "inputs names 4 tensors; at most 3"),
    (inputs() | {"outputs": [{"name": "mask"}] * 4}, 400, "outputs names 4 tensors; at most 3"),
    (inputs() | {"id": 3}, 400, "id"),
    (inputs() | {"id": "\ud800"}, 400, "id: Input should be a valid string"),
    (inputs() | {"id": "x" * 1025}, 400, "id"),
    (inputs() | {"output": []}, 400, "output: is no key"),
    (inputs(name="picture"), 400, "picture; expected exactly one, 'image'"),
    (inputs(name="\ud800\n"), 400, "expected exactly one"),
    (inputs(datatype="FP32"), 400, "'FP32'; expected 'UINT8'"),
    (inputs(datatype="uint8"), 400, "'uint8'"),
    (shaped(2, 2, 3), 400, "rank 3; expected four"),
    (shaped(1, 1, 2, 2, 3), 400, "rank 5"),
    (inputs(shape=12), 400, "no list"),
    (shaped(1, 2, 2, 4), 400, "last dimension of 'image' is 4"),
    (shaped(1, 0, 2, 3), 400, "holds '0'"),
    (shaped(-1, 2, 2, 3), 400, "holds '-1'"),
    (shaped(True, 2, 2, 3), 400, "holds 'True'"),
    (shaped(1.0, 2, 2, 3), 400, "holds '1.0'"),
    (shaped("1", 2, 2, 3), 400, "holds '1'"),
    (shaped([1], 2, 2, 3), 400, "holds 'a list'"),
    (shaped(None, 2, 2, 3), 400, "holds 'None'"),
    (shaped(5, 1, 1, 3), 413, "5 images; at most 4"),
    (shaped(1, 37, 1, 3), 413, "37×1 has more than 36 pixels"),
    (shaped(1, 6, 7, 3), 413, "6×7 has more than 36 pixels"),
    (shaped(10**400, 2, 2, 3), 413, "images"),
    (shaped(1, 10**400, 10**400, 3), 413, "pixels"),
    (shaped(1, 2, 2, 10**400), 400, "last dimension"),
    (shaped(1, 2, 3, 3), 400, "12 values; its shape [1, 2, 3, 3] needs 18"),
    (data([]), 400, "0 values"),
    (data({}), 400, "must be a list"),
    (data("AAAA"), 400, "must be a list"),
    (data([0] * 13), 400, "13 values"),
    (data([0] * 11 + [256]), 400, "outside 0…255"),
    (data([0] * 11 + [-1]), 400, "outside 0…255"),
    (data([0] * 11 + [10**30]), 400, "outside 0…255"),
    (data([0] * 11 + [3.0]), 400, "integers 0…255 alone"),
    (data([0] * 11 + [True]), 400, "integers 0…255 alone"),
    (data([0] * 11 + ["3"]), 400, "integers 0…255 alone"),
    (data([0] * 11 + [None]), 400, "integers 0…255 alone"),
    (data([0] * 11 + [[3]]), 400, "integers 0…255 alone"),
    (data([[[[0, 0, 0], [0, 0, 0]], [[0, 0, 0], [0, 0]]]]), 400, "throughout"),
    (data([[[[0, 0, 0], [0, 0, 0]], [[0, 0, 0], 0]]]), 400, "throughout"),
    (data([[[0, 0, 0], [0, 0, 0]], [[0, 0, 0], [0, 0, 0]]]), 400, "throughout"),
    (data([[[[0, 0, 0]] * 2] * 2] * 2), 400, "throughout"),
    (data([[[[0, 0, 0], [0, 0, 0]], [[0, 0, 0], [0, 0, [0]]]]]), 400, "integers 0…255 alone"),
    (data(None), 400, "either 'data' or"),
    (inputs(parameters={"binary_data_size": 12}), 400, "either 'data' or"),
    (inputs(parameters={"shared_memory_region": "r", "shared_memory_byte_size": 12}), 400, "shared memory"),
    (inputs(parameters=[]), 400, "must be an object"),
    (inputs(parameters={"a": {}}), 400, "must be an object of numbers"),
    ({"inputs": [binary_input(IMAGES)]}, 400, "Inference-Header-Content-Length is missing"),
    (inputs() | {"outputs": [{"name": "logits"}]}, 400, "no output 'logits'"),
    (inputs() | {"outputs": [{"name": "mask"}] * 2}, 400, "asked for 2 times"),
    (inputs() | {"outputs": [{"name": "mask", "parameters": {"classification": 3}}]}, 400, "classification"),
    (inputs() | {"outputs": [{"name": "mask", "parameters": {"binary_data": 1}}]}, 400, "binary_data"),
    (inputs() | {"outputs": [{"name": "mask", "parameters": {"shared_memory_region": "r"}}]}, 400, "shared memory"),
    (inputs() | {"parameters": {"binary_data_output": "yes"}}, 400, "binary_data_output"),
    (inputs() | {"parameters": {"sequence_id": 7, "sequence_start": True}}, 400, "sequences are not served"),
    (inputs() | {"parameters": {"sequence_id": "a"}}, 400, "sequences are not served"),
    *(
        (inputs() | {"parameters": {"timeout": wrong}}, 400, "microseconds")
        for wrong in (-1, 1.5, "1.5", "", "-1", "²", "٣", True, 2**64, "9" * 30, 10**400)
    ),
]


@pytest.mark.parametrize(("document", "status", "said"), DOCUMENTS, ids=str)
def test_a_wrong_document_is_refused(document, status, said):
    found = refusal(json.dumps(document).encode())
    assert found[0] == status
    assert said in found[1]


TEXTS = [
    (b"", 400, "no JSON"),
    (b"{", 400, "no JSON"),
    (b"\xff{}", 400, "no UTF-8 at byte 0"),
    ("{}".encode("utf-16"), 400, "no UTF-8"),
    (b"\xef\xbb\xbf{}", 400, "no JSON"),
    (b'{"id": "\xed\xa0\x80"}', 400, "no UTF-8"),
    (b'{"id": "a\nb"}', 400, "no JSON"),
    (b'{"a": NaN}', 400, "NaN"),
    (b'{"a": -Infinity}', 400, "-Infinity"),
    (b'{"a": ' + b"9" * 2000 + b"}", 400, "inputs: Field required"),
    (b'{"id": "a", "id": "b"}', 400, "the key 'id' twice"),
    (b'{"parameters": {"\\ud800": 1, "\\ud800": 2}}', 400, "twice"),
    (b"[" * 10 + b"]" * 10, 400, "deeper than 9"),
    (b'{"a":' * 10 + b"1" + b"}" * 10, 400, "deeper than 9"),
    (b'"\\\\"' + b"[" * 10, 400, "deeper than 9"),
    (b"[" * 9 + b"]" * 9, 400, "no object"),
    (b"[" + b"{}," * 14 + b"{}]", 400, "more than 14 objects"),
    (b" " * 2049, 413, "2049 bytes; at most 2048"),
]


@pytest.mark.parametrize(("text", "status", "said"), TEXTS, ids=str)
def test_a_wrong_text_is_refused(text, status, said):
    found = refusal(text)
    assert found[0] == status
    assert said in found[1]


def test_too_long_a_number_and_too_many_strings_are_refused():
    roomy = ServerSettings()
    assert "a number that is too long" in refusal(b'{"a": ' + b"9" * 5000 + b"}", settings=roomy)[1]
    assert "more than 4096 strings" in refusal(b"[" + b'"",' * 4096 + b'""]', settings=roomy)[1]


def test_depth_is_counted_through_long_texts():
    step = b"[" + b"[0,0,0]," * 15_000
    assert "deeper than 16 levels" in refusal(step * 17, settings=ServerSettings())[1]
    assert "no JSON" in refusal(step * 15, settings=ServerSettings())[1]


BODY, HEADERS = binary_body(IMAGES)
LENGTH = int(HEADERS["Inference-Header-Content-Length"])


@pytest.mark.parametrize(
    ("body", "length", "said"),
    [
        (BODY, ["-1"], "'-1'; expected one number"),
        (BODY, ["+5"], "'+5'"),
        (BODY, ["abc"], "'abc'"),
        (BODY, ["1.0"], "'1.0'"),
        (BODY, [""], "''"),
        (BODY, ["²"], "expected one number"),
        (BODY, ["9" * 50], "expected one number"),
        (BODY, [str(LENGTH)] * 2, "expected one number"),
        (BODY, [str(len(BODY) + 1)], f"but the uncompressed body has {len(BODY)} bytes"),
        (BODY, ["0"], "no JSON"),
        (BODY, [str(LENGTH - 1)], "no JSON"),
        (BODY[:-1], [str(LENGTH)], "11 bytes; 'image' needs exactly 12"),
        (BODY[:LENGTH], [str(LENGTH)], "0 bytes; 'image' needs exactly 12"),
        (BODY + b"\0", [str(LENGTH)], "13 bytes; 'image' needs exactly 12"),
    ],
)
def test_a_wrong_header_length_or_binary_part_is_refused(body, length, said):
    status, message = refusal(body, length)
    assert status == 400
    assert said in message


@pytest.mark.parametrize("size", [0, 11, 13, -1, 12.0, True, "12", 10**300])
def test_the_binary_size_must_be_the_shapes(size):
    head = json.dumps({"inputs": [binary_input(IMAGES) | {"parameters": {"binary_data_size": size}}]}).encode()
    status, message = refusal(head + IMAGES.tobytes(), [str(len(head))])
    assert status == 400
    assert "'binary_data_size' is" in message


def test_bytes_that_belong_to_no_input_are_refused():
    head = json.dumps(inputs()).encode()
    assert "1 bytes follow the JSON" in refusal(head + b"\0", [str(len(head))])[1]


@pytest.mark.parametrize(
    ("body", "encoding", "status", "said"),
    [
        (BODY, ["br"], 415, "'br' is not known"),
        (BODY, ["gzip, gzip"], 415, "'gzip, gzip'"),
        (BODY, ["gzip", "deflate"], 415, "'gzip, deflate'"),
        (BODY, ["gzip"], 400, "no gzip stream"),
        (BODY, ["deflate"], 400, "no deflate stream"),
        (gzip.compress(BODY, mtime=0)[:-1], ["gzip"], 400, "truncated"),
        (zlib.compress(BODY)[:-1], ["deflate"], 400, "truncated"),
        (b"", ["gzip"], 400, "truncated"),
        (gzip.compress(BODY, mtime=0) + b"\0", ["gzip"], 400, "follow the end"),
        (gzip.compress(bytes(4097), mtime=0), ["gzip"], 413, "more than 4096 bytes"),
    ],
)
def test_a_wrong_compression_is_refused(body, encoding, status, said):
    found = refusal(body, [str(LENGTH)], encoding)
    assert found[0] == status
    assert said in found[1]


def peak_bytes(body: bytes, encoding: list[str], settings: ServerSettings) -> int:
    tracemalloc.start()
    try:
        refusal(body, [], encoding, settings)
        return tracemalloc.get_traced_memory()[1]
    finally:
        tracemalloc.stop()


def test_a_bomb_takes_no_memory_beyond_the_limit():
    bomb = gzip.compress(bytes(200 * MIB), 9, mtime=0)
    # zlib's window, the blocks and their joint copy.
    assert peak_bytes(bomb, ["gzip"], ServerSettings(max_body_bytes=MIB)) < 3 * MIB


@pytest.mark.parametrize("unit", [b"[", b"{", b'"",', b"{},"], ids=str)
def test_what_is_refused_by_counting_is_never_parsed(unit):
    body = b"[" + unit * (8 * MIB // len(unit))
    # One copy of the text, its marks (at most as many) and a chunk's sums; parsed, it would be ten times as much.
    assert peak_bytes(body, [], ServerSettings()) < 2 * len(body) + MIB
