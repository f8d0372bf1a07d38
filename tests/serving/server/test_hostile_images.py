"""Broken image files of every kind at /v1/segment: a mask or a 4xx, and the server goes on."""

from __future__ import annotations

import io
from collections.abc import Iterator

import pytest
from hypothesis import HealthCheck, given, settings
from hypothesis import strategies as st
from PIL import Image
from server_builders import client, picture, png
from starlette.testclient import TestClient

URL = "/v1/segment"


def _files() -> list[bytes]:
    """One file of each format that the server takes, and of some that it does not."""
    files = []
    for form in ("PNG", "JPEG", "WEBP", "GIF", "BMP", "TIFF"):
        stream = io.BytesIO()
        Image.fromarray(picture(24, 20)).save(stream, form)
        files.append(stream.getvalue())
    return files


FILES = _files()
MANY = settings(max_examples=350, deadline=None, suppress_health_check=[HealthCheck.function_scoped_fixture])


@pytest.fixture(scope="module")
def http() -> Iterator[TestClient]:
    with client(max_pixels=1_000_000) as opened:
        yield opened


def check(http: TestClient, content: bytes, **headers: str) -> None:
    answer = http.post(URL, content=content, headers=headers)
    if answer.status_code == 200:
        assert answer.content[:4] == b"\x89PNG"
    else:
        assert 400 <= answer.status_code < 500, answer.text
        assert list(answer.json()) == ["error"]


@MANY
@given(st.sampled_from(FILES), st.data())
def test_bytes_changed(http: TestClient, file: bytes, data: st.DataObject) -> None:
    broken = bytearray(file)
    for _ in range(data.draw(st.integers(1, 6))):
        broken[data.draw(st.integers(0, len(broken) - 1))] = data.draw(st.integers(0, 255))
    check(http, bytes(broken))


@MANY
@given(st.sampled_from(FILES), st.data())
def test_cut_doubled_or_glued(http: TestClient, file: bytes, data: st.DataObject) -> None:
    cut = data.draw(st.integers(0, len(file)))
    tail = data.draw(st.sampled_from([b"", file, bytes(64), FILES[0][::-1]]))
    check(http, file[:cut] + tail)


@MANY
@given(st.binary(max_size=400), st.sampled_from(["image/png", "multipart/form-data; boundary=x", "text/plain", ""]))
def test_anything_under_any_name(http: TestClient, content: bytes, kind: str) -> None:
    check(http, content, **({"content-type": kind} if kind else {}))


def test_a_whole_image_is_still_served(http: TestClient) -> None:
    assert http.post(URL, content=png()).status_code == 200
