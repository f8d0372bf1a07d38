"""The server's load tools: their arithmetic, each of them in miniature, and that they notice what is wrong."""

from __future__ import annotations

import json
import sys
from collections.abc import Callable
from pathlib import Path
from typing import Any

import numpy as np
import pytest
import serving
from hypothesis import given
from hypothesis import strategies as st
from PIL import Image
from serving_load import bad_clients, faults, figures, memory, overload, pictures, server_process, shutdown
from serving_load.load_client import LoadResult, Record
from serving_load.outcome import Bar, Outcome
from serving_load.server_process import ServerFailedError, ServerProcess, serve_command
from serving_load.shutdown import Request, ShutdownOptions

STAND_IN = (sys.executable, str(Path(__file__).with_name("stand_in_server.py")))
ARTIFACT = Path("artifact")
# A quarter of the real measurement's sizes, or less: what is tested is the tool.
SMALL_SHUTDOWN = ShutdownOptions(clients=4, before_s=0.3, timeout_s=10, side=32)
finite = st.floats(-1e6, 1e6)


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


# The arithmetic


@given(st.lists(finite, min_size=1, max_size=50), st.floats(0, 100))
def test_percentiles_are_numpys(values: list[float], share: float) -> None:
    # Two ways to interpolate in float64, on numbers up to 1e6.
    assert figures.percentile(values, share) == pytest.approx(np.percentile(values, share), rel=1e-9, abs=1e-6)


def test_the_spread_is_in_milliseconds() -> None:
    seconds = [0.001 * value for value in range(1, 102)]
    assert figures.spread_ms(seconds) == {"count": 101, "p50_ms": 51, "p90_ms": 91, "p99_ms": 100, "max_ms": 101}
    assert figures.spread_ms([]) is None


@given(st.lists(finite, min_size=3, max_size=40), st.integers(1, 1000))
def test_the_slope_is_numpys(kib: list[float], every: int) -> None:
    requests = [every * index for index in range(len(kib))]
    expected = 1000 * np.polyfit(requests, kib, 1)[0]
    # Least squares by sums against a QR factorisation: cancellation is worst where the slope is near 0.
    assert figures.slope_per_1000(requests, kib) == pytest.approx(expected, rel=1e-6, abs=1e-3)


def test_the_second_half_begins_at_half_of_the_requests() -> None:
    assert figures.second_half([0, 250, 500, 750, 1000], [9, 8, 7, 6, 5]) == ([500, 750, 1000], [7, 6, 5])


@given(st.floats(0.1, 2000), st.floats(0.01, 3))
def test_an_open_loop_sends_evenly(rate: float, duration_s: float) -> None:
    times = np.array(figures.send_times(rate, duration_s))
    assert times[0] == 0
    assert times[-1] < duration_s <= times[-1] + 1 / rate + 1e-9
    np.testing.assert_allclose(np.diff(times), 1 / rate, rtol=1e-6)


def test_ratios_are_of_pairs() -> None:
    assert figures.paired_ratio([1, 4, 9], [1, 2, 3]) == {"median": 2, "min": 1, "max": 3}


def test_overload_counts_every_request_once() -> None:
    records = [Record(0, 0.001, 0.021, 200), Record(0.1, 0.1, 0.101, 429, True), Record(0.2, 0.2, 0.201, 503)]
    found = overload.overload_figures(LoadResult([*records, Record(0.3, 0.3, 0.5, problem="reset")], 0.5))
    assert found["statuses"] == {"200": 1, "429": 1, "503": 1}
    assert (found["sent"], found["unanswered"], found["unanswered_because"]) == (4, 1, {"reset": 1})
    assert (found["refused_without_retry_after"], found["goodput_per_s"]) == (1, 2.0)
    assert found["accepted_from_send"]["p50_ms"] == pytest.approx(20)
    assert found["accepted_from_intended"]["p50_ms"] == pytest.approx(21)
    assert found["client_lag"]["max_ms"] == pytest.approx(1)


def test_metrics_are_summed_over_models() -> None:
    text = '# HELP a x\na{model="m",version="1"} 3.0\na{model="n"} 4\na_total 100\naa 100\n'
    assert overload.metric_sum(text, "a") == 7
    assert overload.metric_sum("a 2\n", "a") == 2
    with pytest.raises(ValueError, match="have no b"):
        overload.metric_sum(text, "b")


def test_requests_are_told_apart_by_the_signal() -> None:
    requests = [
        Request(0.0, 0.9, "answered", 200),
        Request(0.9, 1.1, "answered", 200),
        Request(0.9, 1.2, shutdown.CLOSED),
        Request(1.1, 1.1, shutdown.REFUSED),
    ]
    assert shutdown.figures(requests, 1.0) == {
        "answered_before": {"200": 1},
        "under_way": {"200": 1, shutdown.CLOSED: 1},
        "sent_later": {shutdown.REFUSED: 1},
    }


def test_only_segment_requests_of_the_log_count() -> None:
    lines = [{"path": "/v1/segment", "status": 200}, {"path": "/metrics", "status": 200}]
    assert shutdown.logged_statuses("\n".join([*map(json.dumps, lines), "no JSON"])) == {"200": 1}


def test_torch_is_found_by_its_files() -> None:
    harmless = ["/home/torch/onnxruntime/libonnxruntime.so", "/x/site-packages/torchless/a.so"]
    loaded = ["/x/site-packages/torch/_C.so", "/usr/lib/libtorch_cpu.so"]
    assert faults.torch_files([*harmless, *loaded]) == ["_C.so", "libtorch_cpu.so"]


# What is sent


def test_the_bomb_is_a_whole_png(tmp_path: Path) -> None:
    path = tmp_path / "bomb.png"
    path.write_bytes(pictures.bomb(1200))
    with Image.open(path) as image:
        assert (image.size, image.mode) == ((1200, 1200), "1")
        assert image.getextrema() == (0, 0)
    assert path.stat().st_size < 1000


def test_the_mixed_order_repeats_itself_and_is_mixed() -> None:
    options = memory.MemoryOptions(ARTIFACT, requests=400)
    found = list(memory.bodies(options))
    assert found == list(memory.bodies(options))
    assert len({body for kind, body, _ in found if kind == memory.WHOLE}) > 100
    assert 0.05 < sum(kind == memory.BROKEN for kind, _, _ in found) / 400 < 0.15


# Each measurement in miniature


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
    ("fault", "bar"), [("hangs_up", "requests without an answer"), ("no_retry_after", "refusals without Retry-After")]
)
def test_overload_notices(stand_in: Callable[..., None], fault: str, bar: str) -> None:
    stand_in(fault, infer_s=0.02)
    assert bar in missed(small_overload())


def test_overload_notices_what_waits_too_long_and_what_does_not_batch(stand_in: Callable[..., None]) -> None:
    stand_in("queues_for_ever", infer_s=0.02)
    assert {"accepted p99 over unloaded p99", "images of a batch, mean"} <= set(missed(small_overload(max_batch=1)))


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


CPU = {
    "command": "python benchmarks/serving.py cpu ARTIFACT --image FILE --requests 100 --blocks 10",
    "code": {"version": "9.9", "commit": "0123456789abcdef", "dirty": False},
    "environment": {"cpu": "a processor", "cores": 2, "load_average_before": [0.25, 0, 0], "load_average_after": None},
    "figures": {
        "server_cpu_ms": 11.5,
        "direct_cpu_ms": 10.0,
        "server_over_direct": {"median": 1.15, "min": 1.1, "max": 1.25},
    },
    "bars": [{"what": "ratio", "value": 1.15, "expected": "≤ 1.2", "met": True}],
}


def test_the_report_says_what_was_stored(tmp_path: Path, capsys: pytest.CaptureFixture[str]) -> None:
    (tmp_path / "cpu.json").write_text(json.dumps(CPU), encoding="utf-8")
    document = tmp_path / "serving.md"
    document.write_text(
        "# S\n<!-- serving:cpu -->\nold\n<!-- serving:end -->\n<!-- serving:memory -->\n<!-- serving:end -->\nend\n",
        encoding="utf-8",
    )
    words = ["--results", str(tmp_path), "report", "--document", str(document)]
    assert serving.main(words) == serving.OK
    text = document.read_text(encoding="utf-8")
    assert "| server | 11.5 |" in text
    assert "| ratio, block by block | 1.15 (1.1 – 1.25) |" in text
    assert "| ratio | 1.15 | ≤ 1.2 | met |" in text
    assert f"`{CPU['command']}` → `benchmarks/results/serving/cpu.json`; version 9.9 (0123456789)" in text
    assert "not measured yet: `python benchmarks/serving.py memory …`" in text
    assert "old" not in text
    assert serving.main(words) == serving.OK
    assert capsys.readouterr().out.splitlines()[-1] == "serving.md: nothing new"


def test_the_report_refuses_unknown_names(tmp_path: Path, capsys: pytest.CaptureFixture[str]) -> None:
    document = tmp_path / "serving.md"
    document.write_text("<!-- serving:gpu -->\n<!-- serving:end -->\n", encoding="utf-8")
    assert serving.main(["--results", str(tmp_path), "report", "--document", str(document)]) == serving.MISTAKE
    assert "serving:gpu names something unknown; expected cpu, overload, memory, faults" in capsys.readouterr().err


@pytest.mark.parametrize("name", ["overload", "memory", "faults"])
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
