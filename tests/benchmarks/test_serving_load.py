"""The server's load tools in miniature: against a stand-in, whose faults they notice, and against the server itself."""

from __future__ import annotations

import json
import sys
from collections.abc import Callable
from pathlib import Path
from typing import Any

import pytest
import serving
from rounds import first_of
from serving_builders import write_artifact
from serving_load import bad_clients, cpu, faults, memory, overload, pictures, server_process, shutdown
from serving_load.outcome import Bar, Outcome
from serving_load.server_process import ServerFailedError, ServerProcess, serve_command
from serving_load.shutdown import ShutdownOptions

STAND_IN = (sys.executable, str(Path(__file__).with_name("stand_in_server.py")))
ARTIFACT = Path("artifact")
SMALL_SHUTDOWN = ShutdownOptions(clients=4, before_s=0.3, timeout_s=10, side=32)


@pytest.fixture
def stand_in(monkeypatch: pytest.MonkeyPatch) -> Callable[..., None]:
    """Put the stand-in in the server's place; called with a fault, one that does wrong."""

    def put(fault: str = "", infer_s: float = 0.002) -> None:
        monkeypatch.setenv("STAND_IN_FAULT", fault)
        monkeypatch.setenv("STAND_IN_INFER_S", str(infer_s))
        monkeypatch.setattr(server_process, "SERVE", STAND_IN)
        monkeypatch.setattr(
            overload, "server_command", lambda _, settings: [*STAND_IN, f"max_batch={settings['max_batch']}"]
        )

    put()
    return put


def missed(outcome: Outcome) -> list[str]:
    return [bar.what for bar in outcome.bars if not bar.met]


# Against the stand-in


def small_overload(**more: Any) -> Outcome:
    return overload.measure(overload.OverloadOptions(duration_s=1.5, unloaded=40, **more))


def test_overload(stand_in: Callable[..., None]) -> None:
    stand_in(infer_s=0.02)
    outcome = small_overload()
    found = outcome.figures["overload"]
    assert found["sent"] == 1200
    assert found["unanswered"] == 0
    assert set(found["statuses"]) == {"200", "429"}
    assert found["refused_without_retry_after"] == 0
    assert 1 < outcome.figures["batches"]["mean_images"] <= 4
    assert outcome.figures["afterwards"] == {**outcome.figures["afterwards"], "sent": 10, "answered": 10}


@pytest.mark.parametrize(
    ("fault", "bar"),
    first_of([("hangs_up", "requests without an answer"), ("no_retry_after", "refusals without Retry-After")]),
)
def test_overload_notices(stand_in: Callable[..., None], fault: str, bar: str) -> None:
    stand_in(fault, infer_s=0.02)
    assert bar in missed(small_overload())


@pytest.mark.slow
def test_overload_notices_what_waits_too_long_and_what_does_not_batch(stand_in: Callable[..., None]) -> None:
    stand_in("queues_for_ever", infer_s=0.02)
    late = {"accepted p99 over unloaded p99", "images of a batch, mean", "requests really sent a second"}
    assert late <= set(missed(small_overload(max_batch=1)))


def small_memory(**more: Any) -> Outcome:
    return memory.measure(memory.MemoryOptions(ARTIFACT, requests=400, sample_every=50, **more))


def test_memory(stand_in: Callable[..., None]) -> None:
    outcome = small_memory()
    assert missed(outcome) == []
    assert [count for count, _ in outcome.figures["samples"]] == list(range(0, 401, 50))
    # The stand-in keeps nothing; what its interpreter takes in the first seconds is far below a leak of 100 KB each.
    assert outcome.figures["slope_kib_per_1000_requests"] < 30_000


def test_memory_notices_a_leak(stand_in: Callable[..., None]) -> None:
    stand_in("leaks")
    slope = small_memory().figures["slope_kib_per_1000_requests"]
    # 100,000 bytes a request are 97,656 KiB a thousand.
    assert slope == pytest.approx(97_656, rel=0.3)


def test_shutdown(stand_in: Callable[..., None]) -> None:
    found = shutdown.measure(serve_command(ARTIFACT, {"queue_size": 16}), SMALL_SHUTDOWN)
    assert [bar for bar in shutdown.bars(found) if not bar.met] == []
    assert found["under_way"]["200"] > 0
    assert found["exit_after_s"] < 5


def test_shutdown_notices_what_is_lost(stand_in: Callable[..., None]) -> None:
    stand_in("ends_at_once", infer_s=0.05)
    found = shutdown.measure(serve_command(ARTIFACT, {"queue_size": 16}), SMALL_SHUTDOWN)
    assert found["exit_code"] == 7
    assert shutdown.CLOSED in found["under_way"]
    assert {bar.what for bar in shutdown.bars(found) if not bar.met} >= {
        "SIGTERM: what requests under way got",
        "SIGTERM: exit code",
    }


def test_bad_clients(stand_in: Callable[..., None]) -> None:
    with ServerProcess(serve_command(ARTIFACT, {"header_timeout_s": 0.5})) as server:
        assert bad_clients.disconnect(server, 2) == {"left": 16, "others": {"200": 2}, "running": True}
        slow = bad_clients.slow_loris(server, 5, allowed_s=3)
        assert slow["left_open"] == 0
        assert 0.4 < slow["closed_after_s_greatest"] < 3
        assert set(slow["others"]) == {"200"}
        bomb = bad_clients.bomb(server, 5000, 2)
        assert (bomb["statuses"], bomb["status_afterwards"]) == ({"413": 2}, 200)


def test_slow_clients_that_stay_are_noticed(stand_in: Callable[..., None]) -> None:
    stand_in("patient")
    with ServerProcess(serve_command(ARTIFACT, {})) as server:
        assert bad_clients.slow_loris(server, 3, allowed_s=1)["left_open"] == 3


def test_a_bomb_that_is_decoded_is_noticed(stand_in: Callable[..., None]) -> None:
    stand_in("swallows_bombs")
    with ServerProcess(serve_command(ARTIFACT, {})) as server:
        # 12,000² pixels of one byte are 140,625 KiB.
        assert bad_clients.bomb(server, 12_000, 1)["rss_rise_kib"] > 100_000


def test_faults_together(stand_in: Callable[..., None]) -> None:
    options = faults.FaultOptions(
        ARTIFACT,
        starts=1,
        slow_connections=3,
        header_timeout_s=0.5,
        disconnects=1,
        bomb_side=5000,
        bombs=1,
        shutdown=SMALL_SHUTDOWN,
    )
    outcome = faults.measure(options)
    assert missed(outcome) == []
    assert outcome.figures["start"]["mapped_files"] > 3


def test_a_server_that_does_not_start_says_why(monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.setattr(server_process, "SERVE", (sys.executable, "-c", "raise SystemExit('no such artifact')"))
    with (
        pytest.raises(ServerFailedError, match="ended with 1: no such artifact"),
        ServerProcess(serve_command(ARTIFACT, {})),
    ):
        pass


# The command and the report


def test_the_command_stores_what_it_found(
    stand_in: Callable[..., None], tmp_path: Path, capsys: pytest.CaptureFixture[str]
) -> None:
    words = ["--results", str(tmp_path), "memory", "/home/me/artifact", "--requests", "50", "--sample-every", "10"]
    assert serving.main(words) == serving.OK
    stored = json.loads((tmp_path / "memory.json").read_text(encoding="utf-8"))
    assert stored["command"] == "python benchmarks/serving.py memory ARTIFACT --requests 50 --sample-every 10"
    assert "/home/me" not in json.dumps(stored)
    assert stored["settings"]["artifact"] == "artifact"
    assert {"cpu", "cores", "versions", "load_average_before"} <= set(stored["environment"])
    assert stored["met"] is True
    assert "met    answers to whole images other than 200: {} (expected {})" in capsys.readouterr().out


def test_a_missed_bar_is_an_exit_code(monkeypatch: pytest.MonkeyPatch, tmp_path: Path) -> None:
    monkeypatch.setitem(serving.MEASUREMENTS, "overload", lambda _: Outcome({}, {}, (Bar("x", 2, "≤ 1", False),)))
    assert serving.main(["--results", str(tmp_path), "overload"]) == serving.MISSED


@pytest.mark.parametrize("name", first_of(["memory", "overload", "faults"]))
def test_the_report_takes_what_the_measurements_give(
    stand_in: Callable[..., None], tmp_path: Path, monkeypatch: pytest.MonkeyPatch, name: str
) -> None:
    small = {
        "overload": lambda _: overload.measure(overload.OverloadOptions(duration_s=0.2, unloaded=5)),
        "memory": lambda _: memory.measure(memory.MemoryOptions(ARTIFACT, requests=20, sample_every=5)),
        "faults": lambda _: faults.measure(
            faults.FaultOptions(ARTIFACT, 1, 1, 0.2, 1, 5000, 1, ShutdownOptions(2, 0.1, 10, 32))
        ),
    }
    monkeypatch.setitem(serving.MEASUREMENTS, name, small[name])
    arguments = [] if name == "overload" else ["artifact"]
    assert serving.main(["--results", str(tmp_path), name, *arguments]) in (serving.OK, serving.MISSED)
    text = serving.report.section(name, tmp_path)
    assert "| bar | found | expected |  |" in text
    assert "None" not in text


# Against the server itself


@pytest.fixture(scope="module")
def artifact(tmp_path_factory: pytest.TempPathFactory) -> Path:
    return write_artifact(tmp_path_factory.mktemp("served") / "tiny")


def test_cpu_of_the_server(artifact: Path, tmp_path: Path) -> None:
    image = tmp_path / "image.png"
    image.write_bytes(pictures.encoded(300, 400))
    words = ["--results", str(tmp_path), "cpu", str(artifact), "--image", str(image), "--requests", "30", "--blocks"]
    # Whether the bar is met is for a quiet machine and more requests.
    assert serving.main([*words, "3"]) in (serving.OK, serving.MISSED)
    found = json.loads((tmp_path / "cpu.json").read_text(encoding="utf-8"))["figures"]
    assert len(found["server_cpu_ms_by_block"]) == len(found["direct_cpu_ms_by_block"]) == 3
    assert found["server_over_direct"]["min"] > 0.5
    assert "| segmenter, bytes to PNG |" in serving.report.section("cpu", tmp_path)


def test_cpu_says_what_the_server_refuses(artifact: Path, tmp_path: Path) -> None:
    broken = tmp_path / "image.png"
    broken.write_bytes(b"no image")
    with pytest.raises(RuntimeError, match="the server answered 400"):
        cpu.measure(cpu.CpuOptions(artifact, broken, requests=1, blocks=1))


def test_overload_of_the_server() -> None:
    outcome = overload.measure(overload.OverloadOptions(duration_s=1, unloaded=10, times=2))
    found = outcome.figures["overload"]
    assert (found["sent"], found["unanswered"], found["refused_without_retry_after"]) == (400, 0, 0)
    assert set(found["statuses"]) <= {"200", "429", "503"}
    assert outcome.figures["batches"]["images"] == found["statuses"]["200"]


def test_memory_of_the_server(artifact: Path) -> None:
    outcome = memory.measure(memory.MemoryOptions(artifact, requests=120, sample_every=30))
    assert missed(outcome) == []
    assert len(outcome.figures["samples"]) == 5


def test_faults_of_the_server(artifact: Path) -> None:
    options = faults.FaultOptions(artifact, 1, 3, 1.0, 1, 30_000, 1, ShutdownOptions(4, 0.5, 20, 64))
    outcome = faults.measure(options)
    # How long a start takes is for a quiet machine.
    assert [bar for bar in missed(outcome) if not bar.startswith("start to ready")] == []
    assert outcome.figures["shutdown"]["under_way"]["200"] > 0
