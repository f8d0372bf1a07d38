"""Keys, ids, figures, the page, the documentation: what surrounds the masks."""

import json
import logging
import re

import pytest
from server_builders import RedSegmenter, client, hosted, png, until
from starlette.testclient import TestClient

from dropclass_deploy.core.errors import UserError
from dropclass_deploy.serving.server.app import create_app
from dropclass_deploy.serving.server.settings import ServerSettings

URL = "/v1/segment"


def test_a_key_is_asked_for_everywhere_but_on_the_health_routes() -> None:
    with client(api_key="open sesame") as http:
        for path in ("/", "/metrics", "/docs", "/openapi.json", "/v2", "/v2/models/street", "/nowhere"):
            answer = http.get(path)
            assert (answer.status_code, answer.headers["www-authenticate"]) == (401, "Bearer"), path
        assert http.post(URL, content=png()).status_code == 401
        assert http.get("/v2/health/live").status_code == 200
        assert http.get("/v2/health/ready").status_code == 200
        key = b"open sesame"
        assert http.post(URL, content=png(), headers={"X-API-Key": b"wrong"}).status_code == 401
        assert http.post(URL, content=png(), headers={"Authorization": b"Basic " + key}).status_code == 401
        assert http.post(URL, content=png(), headers={"Authorization": b"Bearer "}).status_code == 401


@pytest.mark.parametrize(
    "headers", [{"X-API-Key": "k3y"}, {"Authorization": "Bearer k3y"}, {"authorization": "bearer k3y"}]
)
def test_the_right_key_opens(headers: dict[str, str]) -> None:
    with client(api_key="k3y") as http:
        assert http.post(URL, content=png(), headers=headers).status_code == 200


def test_request_ids_come_back_when_they_are_plain() -> None:
    with client() as http:
        assert http.get("/", headers={"X-Request-ID": "a-1.b_2"}).headers["x-request-id"] == "a-1.b_2"
        seen = set()
        for given in ("a b", "x" * 65, 'a"b', "a\tb"):
            made = http.get("/", headers={"X-Request-ID": given}).headers["x-request-id"]
            assert made != given
            assert re.fullmatch(r"[0-9a-f]{24}", made)
            seen.add(made)
        assert len(seen) == 4


def test_each_request_is_one_line_of_json(caplog: pytest.LogCaptureFixture) -> None:
    caplog.set_level(logging.INFO, "dropclass_deploy.access")
    with client(access_log=True) as http:
        http.post(f"{URL}?model=street", content=png(), headers={"X-Request-ID": "one"})
        http.get('/a%0d%0ainjected"line')
    first, second = (json.loads(record.message) for record in caplog.records if record.name.endswith("access"))
    assert (first["request_id"], first["status"], first["model"], first["images"]) == ("one", 200, "street", 1)
    assert set(first["stages_ms"]) == {"decode", "queue", "preprocess", "infer", "mask", "encode"}
    assert first["duration_ms"] > 0
    assert second["status"] == 404
    assert "\n" not in second["path"]


def test_a_fault_of_ours_tells_its_number_and_nothing_else(caplog: pytest.LogCaptureFixture) -> None:
    segmenter = RedSegmenter()
    with client(segmenter) as http:
        segmenter.read_image = lambda *_: 1 / 0  # type: ignore[method-assign,assignment,return-value]
        answer = http.post(URL, content=png(), headers={"X-Request-ID": "broken"})
        assert (answer.status_code, answer.json()) == (500, {"error": "internal error, request broken"})
        assert http.get("/v2/health/live").status_code == 200
    assert any("ZeroDivisionError" in record.message and "broken" in record.message for record in caplog.records)


def test_figures_under_tritons_names() -> None:
    segmenter = RedSegmenter()
    with client(segmenter) as http:
        for _ in range(3):
            http.post(URL, content=png())
        http.post(URL, content=b"no image")
        text = http.get("/metrics").text
    lines = dict(line.rsplit(" ", 1) for line in text.splitlines() if not line.startswith("#"))
    label = '{model="street",version="1"}'
    assert float(lines[f"nv_inference_request_success{label}"]) == 3
    assert float(lines[f"nv_inference_count{label}"]) == 3
    assert float(lines[f"nv_inference_exec_count{label}"]) == 3
    assert float(lines['nv_inference_request_failure{model="street",reason="OTHER",version="1"}']) == 1
    # 2 ms of "infer" each.
    assert float(lines[f"nv_inference_compute_infer_duration_us{label}"]) == pytest.approx(6000)
    assert float(lines[f"nv_inference_compute_infer_summary_us_sum{label}"]) == pytest.approx(6000)
    assert float(lines[f"nv_inference_compute_infer_summary_us_count{label}"]) == 3
    assert float(lines['nv_inference_compute_infer_summary_us_bucket{le="1000.0",model="street",version="1"}']) == 0
    assert float(lines['nv_inference_compute_infer_summary_us_bucket{le="2000.0",model="street",version="1"}']) == 3
    assert float(lines[f"nv_inference_pending_request_count{label}"]) == 0
    assert float(lines[f"dropclass_model_ready{label}"]) == 1


def test_the_documentation_needs_nothing_from_elsewhere() -> None:
    with client() as http:
        for path in ("/docs", "/"):
            text = http.get(path).text
            assert "http://" not in text
            assert "https://" not in text
        script = http.get("/static-offline-docs/swagger-ui-bundle.js")
        assert script.status_code == 200
        assert len(script.content) > 100_000
        schema = http.get("/openapi.json").json()
    assert "multipart/form-data" in schema["paths"][URL]["post"]["requestBody"]["content"]


def test_the_page_escapes_and_says_what_is_ready() -> None:
    with client() as http:
        answer = http.get("/")
    assert "default-src 'none'" in answer.headers["content-security-policy"]
    assert "<td>street</td><td>ready</td>" in answer.text
    assert "background:rgb(" in answer.text


def test_what_cannot_be_served_together() -> None:
    with pytest.raises(
        UserError, match="the models to serve are street, street; expected at least one, each with a name"
    ):
        create_app([hosted(), hosted()], ServerSettings())
    with pytest.raises(UserError, match="the models to serve are none"):
        create_app([], ServerSettings())


def test_methods_and_paths_that_are_not_there() -> None:
    with client() as http:
        for method, path, status in (("GET", URL, 405), ("POST", "/metrics", 405), ("GET", "/v1/../etc/passwd", 404)):
            answer = http.request(method, path)
            assert answer.status_code == status
            assert list(answer.json()) == ["error"]


def test_a_network_that_cannot_be_opened_is_told() -> None:
    def opener() -> RedSegmenter:
        raise UserError("no such runtime here")

    from dropclass_deploy.serving.server.hosting import HostedModel

    app = create_app([HostedModel("street", opener, ServerSettings())], ServerSettings())
    with TestClient(app) as http:
        until(lambda: app.state.server.failure is not None)
        answer = http.post(URL, content=png())
        assert (answer.status_code, answer.json()["error"]) == (503, "the model street is not ready")
        assert http.get("/v2/health/ready").status_code == 503
