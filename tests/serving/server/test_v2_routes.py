"""Each V2 route inside the test: one request, its status and its body."""

from __future__ import annotations

import gzip
import json
import threading

import numpy as np
import pytest
from v2_app import NAME, FakeModel, FakeServer, ask, expected_mask
from v2_bodies import binary_body, json_body, pixels

from dropclass_deploy import __version__

IMAGES = pixels(3, 4, 6, 3)
MODEL = f"/v2/models/{NAME}"


@pytest.fixture
def server() -> FakeServer:
    return FakeServer()


def test_metadata_of_the_server(server):
    answer = ask(server, "GET", "/v2")
    assert answer.status == 200
    assert answer.json() == {
        "name": "dropclass_deploy",
        "version": __version__,
        "extensions": ["binary_tensor_data", "model_configuration", "model_repository"],
    }


@pytest.mark.parametrize("path", [MODEL, f"{MODEL}/versions/1"])
def test_metadata_and_configuration_of_a_model(server, path):
    assert ask(server, "GET", path).json() == {
        "name": NAME,
        "versions": ["1"],
        "platform": "dropclass_onnx",
        "inputs": [{"name": "image", "datatype": "UINT8", "shape": [-1, -1, -1, 3]}],
        "outputs": [{"name": "mask", "datatype": "UINT8", "shape": [-1, -1, -1]}],
    }
    config = ask(server, "GET", f"{path}/config").json()
    assert (config["name"], config["max_batch_size"]) == (NAME, 0)
    assert config["input"] == [{"name": "image", "data_type": "TYPE_UINT8", "dims": [-1, -1, -1, 3]}]
    assert config["output"] == [{"name": "mask", "data_type": "TYPE_UINT8", "dims": [-1, -1, -1]}]


def statuses(server: FakeServer, *names: str) -> list[int]:
    paths = ["/v2/health/live", "/v2/health/ready", *(f"/v2/models/{name}/ready" for name in names)]
    return [ask(server, "GET", path).status for path in paths]


def test_readiness_is_of_all_models_and_of_each():
    well, ill = FakeModel("well"), FakeModel("ill")
    server = FakeServer(well, ill)
    assert statuses(server, "well", "ill") == [200, 200, 200, 200]
    ill.ready = False
    assert statuses(server, "well", "ill") == [200, 503, 200, 503]
    assert ask(server, "GET", "/v2/models/ill/versions/1/ready").json() == {"error": "the model 'ill' is not ready"}
    ill.ready, server.draining = True, True
    assert statuses(server, "well", "ill") == [200, 503, 503, 503]


@pytest.mark.parametrize("body", [b"", b"{}", b'{"ready": false}', b'{"ready": true}'])
def test_the_index(body):
    ill = FakeModel("ill")
    ill.ready = False
    answer = ask(FakeServer(FakeModel("well"), ill), "POST", "/v2/repository/index", body)
    well = {"name": "well", "version": "1", "state": "READY", "reason": ""}
    other = {"name": "ill", "version": "1", "state": "UNAVAILABLE", "reason": "the network does not answer"}
    assert answer.json() == ([well] if b"true" in body else [well, other])


@pytest.mark.parametrize("body", [b"x", b"[]", b'{"ready": 1}', b'{"reday": true}', b'{"ready": {}}', b" " * 70_000])
def test_a_wrong_index_request(server, body):
    answer = ask(server, "POST", "/v2/repository/index", body)
    assert answer.status in (400, 413)
    assert list(answer.json()) == ["error"]


@pytest.mark.parametrize("action", ["load", "unload"])
def test_models_are_neither_loaded_nor_unloaded(server, action):
    answer = ask(server, "POST", f"/v2/repository/models/{NAME}/{action}")
    assert answer.status == 400
    assert "chosen when the server starts" in answer.json()["error"]


@pytest.mark.parametrize("path", [f"{MODEL}/infer", f"{MODEL}/versions/1/infer"])
def test_infer_from_json_to_json(server, path):
    answer = ask(server, "POST", path, json_body(IMAGES, id="7"))
    assert answer.status == 200
    assert answer.headers["content-type"] == "application/json"
    assert answer.json() == {
        "model_name": NAME,
        "model_version": "1",
        "id": "7",
        "outputs": [
            {
                "name": "mask",
                "datatype": "UINT8",
                "shape": [3, 4, 6],
                "data": expected_mask(IMAGES).ravel().tolist(),
            }
        ],
    }


def test_infer_from_binary_to_compressed_binary(server):
    body, headers = binary_body(IMAGES, parameters={"binary_data_output": True})
    headers |= {"Content-Encoding": "gzip", "Accept-Encoding": "gzip"}
    answer = ask(server, "POST", f"{MODEL}/infer", gzip.compress(body), headers)
    assert answer.status == 200
    assert answer.headers["content-type"] == "application/octet-stream"
    assert answer.headers["content-encoding"] == "gzip"
    assert answer.headers["content-length"] == str(len(answer.body))
    plain, length = gzip.decompress(answer.body), int(answer.headers["inference-header-content-length"])
    assert json.loads(plain[:length])["outputs"][0]["parameters"] == {"binary_data_size": 3 * 4 * 6}
    np.testing.assert_array_equal(np.frombuffer(plain[length:], np.uint8).reshape(3, 4, 6), expected_mask(IMAGES))


def test_a_request_may_ask_for_less_time_than_the_server_gives():
    model = FakeModel(timeout_s=2.0)
    server = FakeServer(model, timeout_s=2.0)
    for timeout in (0, 500_000, 9_000_000, 2**64 - 1):
        assert ask(server, "POST", f"{MODEL}/infer", json_body(IMAGES, parameters={"timeout": timeout})).status == 200
    # Granted from a request's arrival; what is left of it when its images are queued follows each.
    assert model.timeouts[::2] == [2.0, 0.5, 2.0, 2.0]


def test_tensors_are_read_and_written_off_the_event_loop(server):
    ask(server, "POST", f"{MODEL}/infer", json_body(IMAGES))
    assert server.pool_threads
    assert threading.get_ident() not in server.pool_threads


@pytest.mark.parametrize(
    ("name", "status"),
    [
        ("other", 404),
        ("stats", 404),
        ("_tiny", 400),
        (".hidden", 400),
        ("a b", 400),
        ("naïve", 400),
        ("a\n", 400),
        ("a" * 128, 404),
        ("a" * 129, 400),
        (f"{NAME}/versions/2", 404),
        (f"{NAME}/versions/01", 404),
        (f"{NAME}/versions/x", 404),
    ],
)
def test_a_model_that_is_not_there_is_refused_before_the_body_is_read(server, name, status):
    for method, rest in (("GET", ""), ("GET", "/ready"), ("GET", "/config"), ("POST", "/infer")):
        answer = ask(server, method, f"/v2/models/{name}{rest}", json_body(IMAGES))
        assert answer.status == status, rest
        assert list(answer.json()) == ["error"]
    assert server.bodies_read == 0


def test_a_refused_request_gets_one_sentence(server):
    answer = ask(server, "POST", f"{MODEL}/infer", b"{}")
    assert answer.status == 400
    assert answer.json() == {"error": "inputs: Field required"}
