from __future__ import annotations

import gc
import json
import shutil
import time
from collections.abc import Mapping
from pathlib import Path

import numpy as np
import pytest
from serving_builders import PLAIN, conv_weights, random_images, save_logits, write_artifact

from dropclass_deploy.core.errors import ArtifactError, UserError
from dropclass_deploy.core.files import write_json, write_text
from dropclass_deploy.core.manifest import read_manifest
from dropclass_deploy.core.preprocess import Preprocess
from dropclass_deploy.data.images import encode_png
from dropclass_deploy.serving.benchmark import BenchOptions, NaiveOnnx, bench
from dropclass_deploy.serving.benchmark.contender import SCOPES, Query
from dropclass_deploy.serving.benchmark.environment import cpu_model
from dropclass_deploy.serving.benchmark.ours import Ours
from dropclass_deploy.serving.benchmark.report import ratios_of, result_of
from dropclass_deploy.serving.benchmark.rounds import Timings, run_rounds
from dropclass_deploy.serving.segmenter import Segmenter

QUICK = BenchOptions(queries=3, warmup=1)
SIZED = Preprocess(mean=PLAIN.mean, std=PLAIN.std, size=(16, 20))


class Recorder:
    """A contender that writes down when it is called."""

    runtime = "none"
    precision = "fp32"
    provider = "none"

    def __init__(self, name: str, log: list[tuple[str, str]], pause_s: float = 0.0) -> None:
        self.name = name
        self._log = log
        self._pause_s = pause_s

    def prepare(self, encoded: bytes) -> Mapping[str, Query]:
        return {scope: lambda scope=scope: self._query(scope) for scope in SCOPES}  # type: ignore[misc]

    def _query(self, scope: str) -> Mapping[str, float]:
        self._log.append((scope, self.name))
        time.sleep(self._pause_s)
        return {"stage": 2.0}


@pytest.fixture
def artifact(tmp_path: Path) -> Path:
    return write_artifact(tmp_path / "a")


def test_report_has_the_fields_of_the_contract(tmp_path: Path, artifact: Path) -> None:
    naive = save_logits(tmp_path / "naive.onnx", conv_weights())
    with NaiveOnnx(naive, PLAIN, threads=1) as peer:
        report = bench(artifact, contenders=[peer], options=QUICK)
    content = json.loads((artifact / "evidence/bench.json").read_text())
    assert content == json.loads(json.dumps(report.to_json()))
    assert {(row["contender"], row["scope"]) for row in content["results"]} == {
        (name, scope) for name in ("ours", "naive") for scope in SCOPES
    }
    for row in content["results"]:
        assert (row["scenario"], row["runtime"], row["precision"]) == ("single-stream", "onnxruntime", "fp32")
        assert (row["resolution"], row["batch"], row["queries"]) == ([24, 32], 1, 3)
        assert 0 < row["latency_ms"]["p50"] <= row["latency_ms"]["p90"]
        assert row["throughput_per_s"] > 0
        wanted = ["decode", "preprocess", "infer", "mask"] if row["scope"] == "end_to_end" else []
        assert list(row["stages_ms"]) == wanted
    assert {(row["scope"], row["against"]) for row in content["ratios"]} == {(scope, "naive") for scope in SCOPES}
    assert all(row["p10"] <= row["median"] <= row["p90"] for row in content["ratios"])
    assert {"cpu", "cores", "affinity", "threads", "load_average_before", "load_average_after", "versions"} <= set(
        content["environment"]
    )


def test_no_parity_is_said_in_the_headline(artifact: Path) -> None:
    report = bench(artifact, options=QUICK)
    assert report.parity_verdict is None
    assert "parity is not proved: there is no evidence/parity.json" in report.headline


@pytest.mark.parametrize("verdict", ["pass", "fail"])
def test_parity_verdict_of_the_timed_file(artifact: Path, verdict: str) -> None:
    digest = read_manifest(artifact).files["models/model.mask.onnx"]
    write_json(artifact / "evidence/parity.json", {"verdict": verdict, "candidate_sha256": digest})
    report = bench(artifact, options=QUICK)
    assert report.parity_verdict == verdict
    assert f"parity verdict of the timed file: {verdict}" in report.headline


@pytest.mark.parametrize(
    ("content", "reason"),
    [
        ('{"verdict": "pass", "candidate_sha256": "0"}', "speaks of another file"),
        ("{", "cannot be read"),
        ("[]", "cannot be read"),
    ],
)
def test_foreign_parity_proves_nothing(artifact: Path, content: str, reason: str) -> None:
    write_text(artifact / "evidence/parity.json", content)
    report = bench(artifact, options=QUICK)
    assert report.parity_verdict is None
    assert reason in report.headline


@pytest.mark.parametrize("preprocess", [PLAIN, SIZED])
def test_contenders_make_the_same_mask(tmp_path: Path, preprocess: Preprocess) -> None:
    encoded = encode_png(random_images(1, (48, 60))[0])
    naive = save_logits(tmp_path / "naive.onnx", conv_weights())
    with Segmenter.load(write_artifact(tmp_path / "a", preprocess=preprocess)) as segmenter:
        ours = Ours(segmenter).segment(encoded)
    with NaiveOnnx(naive, preprocess) as peer:
        found = peer.segment(encoded)
    assert ours.shape == found.shape == (48, 60)
    # Normalising in another order of operations rounds otherwise: a near-tie may fall the other way.
    assert np.count_nonzero(ours != found) <= 2


def test_fixed_size_reports_both_resolutions(tmp_path: Path) -> None:
    encoded = encode_png(random_images(1, (48, 60))[0])
    report = bench(write_artifact(tmp_path / "a", preprocess=SIZED), encoded=encoded, options=QUICK)
    assert {row.scope: row.resolution for row in report.results} == {
        "model": (16, 20), "transfer": (16, 20), "end_to_end": (48, 60),
    }  # fmt: skip


def test_output_can_go_elsewhere(tmp_path: Path, artifact: Path) -> None:
    bench(artifact, output=tmp_path / "b/bench.json", options=QUICK)
    assert (tmp_path / "b/bench.json").is_file()
    assert not (artifact / "evidence").exists()


def test_unwritable_output_names_the_option(artifact: Path) -> None:
    write_text(artifact / "evidence", "a file")
    with pytest.raises(UserError, match=r"bench\.json cannot be written.*-o"):
        bench(artifact, options=QUICK)


def test_missing_sample(tmp_path: Path) -> None:
    artifact = write_artifact(tmp_path / "a", edit=lambda folder: (folder / "sample/image.png").unlink())
    with pytest.raises(ArtifactError, match=r"no sample/image\.png"):
        bench(artifact, options=QUICK)


def test_equal_names_are_refused(artifact: Path) -> None:
    with pytest.raises(UserError, match=r"ours, twin, twin.*names that differ"):
        bench(artifact, contenders=[Recorder("twin", []), Recorder("twin", [])], options=QUICK)


def test_naive_refuses_another_layout(artifact: Path) -> None:
    with pytest.raises(UserError, match=r"image uint8 .*expected one image float32"):
        NaiveOnnx(artifact / "models/model.mask.onnx", PLAIN)


def test_every_round_runs_everything_once_and_starts_elsewhere() -> None:
    log: list[tuple[str, str]] = []
    queries = {name: Recorder(name, log).prepare(b"") for name in "ab"}
    timings = run_rounds(queries, BenchOptions(queries=6, warmup=0))
    rounds = [log[start : start + 6] for start in range(0, 36, 6)]
    assert all(set(each) == {(scope, name) for scope in SCOPES for name in "ab"} for each in rounds)
    assert {each[0] for each in rounds} == set(rounds[0])
    assert all(len(timing.latency_ns) == len(timing.stages_ms) == 6 for timing in timings.values())


def test_warmup_is_not_timed() -> None:
    log: list[tuple[str, str]] = []
    timings = run_rounds({"a": Recorder("a", log).prepare(b"")}, BenchOptions(queries=2, warmup=5))
    assert len(log) == 7 * 3
    assert len(timings["model", "a"].latency_ns) == 2


def test_latency_is_the_time_of_the_query() -> None:
    timings = run_rounds({"a": Recorder("a", [], pause_s=0.004).prepare(b"")}, BenchOptions(queries=3, warmup=0))
    assert all(latency >= 4_000_000 for timing in timings.values() for latency in timing.latency_ns)


def test_garbage_collection_is_off_inside_and_restored() -> None:
    seen: list[bool] = []

    def query() -> Mapping[str, float]:
        seen.append(gc.isenabled())
        return {}

    run_rounds({"a": {"model": query}}, BenchOptions(queries=2, warmup=0))
    assert seen == [False, False]
    assert gc.isenabled()


def test_garbage_collection_is_restored_after_an_error() -> None:
    def query() -> Mapping[str, float]:
        raise UserError("broken")

    with pytest.raises(UserError, match="broken"):
        run_rounds({"a": {"model": query}}, BenchOptions(queries=2, warmup=0))
    assert gc.isenabled()


def test_budget_ends_the_run_and_says_so(artifact: Path) -> None:
    slow = Recorder("slow", [], pause_s=0.02)
    report = bench(artifact, contenders=[slow], options=BenchOptions(queries=1000, warmup=50, budget_s=0.4))
    made = report.results[0].queries
    assert 1 <= made < 10
    assert f"after {made} of 1000 queries" in report.notes[-1]


def test_p99_needs_a_hundred_queries() -> None:
    contender = Recorder("a", [])
    few = result_of(contender, "model", Timings([10**6] * 99, [{}] * 99), (1, 1))
    many = result_of(contender, "model", Timings([10**6] * 100, [{}] * 100), (1, 1))
    assert (few.latency_ms["p99"], many.latency_ms["p99"]) == (None, 1.0)


def test_figures_of_a_worked_case() -> None:
    timings = Timings([1_000_000, 3_000_000, 2_000_000], [{"infer": 1.0}, {"infer": 5.0}, {"infer": 2.0}])
    result = result_of(Recorder("a", []), "model", timings, (4, 5))
    # 1, 2, 3 ms: median 2; the 90th percentile lies four fifths of the way from 2 to 3; 3 images in 6 ms.
    assert result.latency_ms["p50"] == 2.0
    assert result.latency_ms["p90"] == pytest.approx(2.8)
    assert result.throughput_per_s == pytest.approx(500.0)
    assert result.stages_ms == {"infer": 2.0}
    assert result.cv == pytest.approx(np.std([1, 2, 3]) / 2)


def test_ratio_is_paired_by_round() -> None:
    ours, peer = Timings([1, 10, 100], [{}] * 3), Timings([2, 30, 100], [{}] * 3)
    (ratio,) = ratios_of({("model", "ours"): ours, ("model", "peer"): peer}, "ours")
    # 2, 3 and 1 by round, although the quotient of the medians is 3.
    assert (ratio.scope, ratio.against, ratio.median, ratio.rounds) == ("model", "peer", 2.0, 3)
    assert (ratio.p10, ratio.p90) == (pytest.approx(1.2), pytest.approx(2.8))


@pytest.mark.parametrize(
    ("options", "message"),
    [({"queries": 0}, "0 queries"), ({"warmup": -1}, "-1 warm-up"), ({"budget_s": 0.0}, "budget is 0")],
)
def test_nonsense_options_are_refused(options: dict[str, float], message: str) -> None:
    with pytest.raises(UserError, match=message):
        BenchOptions(**options)  # type: ignore[arg-type]


def test_cpu_model_is_read_from_the_kernel(tmp_path: Path) -> None:
    (tmp_path / "cpuinfo").write_text("processor\t: 0\nmodel name\t: Imaginary 9000 @ 3 GHz\nmodel name\t: second\n")
    assert cpu_model(tmp_path / "cpuinfo") == "Imaginary 9000 @ 3 GHz"
    cpu_model(tmp_path / "none")  # no such file: whatever Python knows, but no error


def test_a_variant_is_timed_and_its_own_report_quoted(tmp_path: Path) -> None:
    """The float32 file passed and the sparse one was never judged: only the timed file's verdict may be quoted."""
    folder = write_artifact(tmp_path / "a")
    manifest = json.loads((folder / "manifest.json").read_text())
    name = "models/model.sparse.mask.onnx"
    shutil.copy(folder / "models/model.mask.onnx", folder / name)
    manifest["files"][name] = manifest["files"]["models/model.mask.onnx"]
    (folder / "manifest.json").write_text(json.dumps(manifest))
    verdict = {"verdict": "pass", "candidate_sha256": manifest["files"][name]}
    (folder / "evidence").mkdir(exist_ok=True)
    (folder / "evidence/parity.json").write_text(json.dumps(verdict))
    options = BenchOptions(queries=2, warmup=0, head="sparse", runtime="openvino")
    assert bench(folder, options=options).parity_verdict is None
    (folder / "evidence/parity.fp32.sparse.openvino.json").write_text(json.dumps(verdict))
    report = bench(folder, options=options)
    assert report.parity_verdict == "pass"
    assert report.results[0].runtime == "openvino"
