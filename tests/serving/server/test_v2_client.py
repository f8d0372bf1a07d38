"""The official client, unmodified, against a real server."""

from __future__ import annotations

import json
import os
import subprocess
import sys
import threading
import time
from collections.abc import Iterator
from pathlib import Path
from typing import Any

import pytest
import uvicorn
from v2_app import NAME, FakeServer, app_of, expected_mask
from v2_bodies import pixels

pytest.importorskip("tritonclient.http")

HERE = Path(__file__).parent
ROOT = HERE.parents[2]
MASKS = expected_mask(pixels(3, 4, 6, 3)).tolist()


@pytest.fixture(scope="module")
def address() -> Iterator[str]:
    config = uvicorn.Config(app_of(FakeServer()), host="127.0.0.1", port=0, lifespan="off", log_level="error")
    server = uvicorn.Server(config)
    thread = threading.Thread(target=server.run)
    thread.start()
    until = time.monotonic() + 60
    while not server.started and time.monotonic() < until:
        time.sleep(0.02)
    assert server.started
    port = server.servers[0].sockets[0].getsockname()[1]
    yield f"127.0.0.1:{port}"
    server.should_exit = True
    thread.join()


@pytest.fixture(scope="module")
def calls(address) -> dict[str, Any]:
    paths = os.pathsep.join((str(HERE), str(ROOT)))
    done = subprocess.run(
        [sys.executable, str(HERE / "v2_client_calls.py"), address],
        env=os.environ | {"PYTHONPATH": paths},
        capture_output=True,
        text=True,
        timeout=120,
    )
    assert done.returncode == 0, done.stderr
    found: dict[str, Any] = json.loads(done.stdout)
    return found


def test_health_is_seen(calls):
    right = calls["right"]
    assert [right[name] for name in ("live", "ready", "model_ready", "model_ready_1")] == [True] * 4
    assert right["other_ready"] is False


def test_descriptions_are_seen(calls):
    right = calls["right"]
    assert right["server"]["name"] == "dropclass_deploy"
    assert right["model"]["inputs"] == [{"name": "image", "datatype": "UINT8", "shape": [-1, -1, -1, 3]}]
    assert right["config"]["output"] == [{"name": "mask", "data_type": "TYPE_UINT8", "dims": [-1, -1, -1]}]
    assert right["index"] == [{"name": NAME, "version": "1", "state": "READY", "reason": ""}]


def test_every_way_of_asking_gives_the_same_masks(calls):
    infers = {name: found for name, found in calls["right"].items() if name.startswith("infer_")}
    assert len(infers) == 19
    for name, found in infers.items():
        assert found["mask"] == MASKS, name
        assert found["dtype"] == "uint8", name
    assert infers["infer_default"]["id"] == "a1"
    assert infers["infer_async"]["id"] == "z"


@pytest.mark.parametrize(
    ("call", "status", "said"),
    [
        ("shape", "400", "rank 3; expected four dimensions"),
        ("channels", "400", "last dimension of 'image' is 2; expected 3"),
        ("dtype", "400", "datatype 'FP32'; expected 'UINT8'"),
        ("async_dtype", "400", "datatype 'FP32'; expected 'UINT8'"),
        ("input_name", "400", "the inputs are: picture; expected exactly one, 'image'"),
        ("output_name", "400", "no output 'logits'"),
        ("classification", "400", "'classification' is not served"),
        ("sequence", "400", "sequences are not served"),
        ("model_name", "404", "no model 'other'"),
        ("model_version", "404", "no version '2', only '1'"),
        ("truncated", "400", "the binary part has 211 bytes; 'image' needs exactly 216"),
        ("shared_memory", "400", "shared memory is not served"),
        ("load", "400", "chosen when the server starts"),
        ("unload", "400", "chosen when the server starts"),
        ("statistics", "404", "no model 'stats'"),
    ],
)
def test_what_is_wrong_is_said(calls, call, status, said):
    found = calls["wrong"][call]
    assert found.get("status") == status, found
    assert said in found["message"]
