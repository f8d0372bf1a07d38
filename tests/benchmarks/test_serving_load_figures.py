"""The arithmetic of the server's load tools, what they send, and what their report says."""

from __future__ import annotations

import json
from pathlib import Path

import numpy as np
import pytest
import serving
from hypothesis import given
from hypothesis import strategies as st
from PIL import Image
from serving_load import faults, figures, memory, overload, pictures, shutdown
from serving_load.load_client import LoadResult, Record
from serving_load.shutdown import Request

finite = st.floats(-1e6, 1e6)


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
    # Four requests, the last of which left at 0.3 s.
    assert found["sent_per_s"] == 13.3
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
    options = memory.MemoryOptions(Path("artifact"), requests=400)
    found = list(memory.bodies(options))
    assert found == list(memory.bodies(options))
    assert len({body for kind, body, _ in found if kind == memory.WHOLE}) > 100
    assert 0.05 < sum(kind == memory.BROKEN for kind, _, _ in found) / 400 < 0.15


# The report

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
