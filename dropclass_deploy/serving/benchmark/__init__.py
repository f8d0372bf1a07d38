"""The latency benchmark: every contender interleaved in one run, three scopes, percentiles and paired ratios."""

from dropclass_deploy.serving.benchmark.measurement import bench
from dropclass_deploy.serving.benchmark.naive import NaiveOnnx
from dropclass_deploy.serving.benchmark.options import BenchOptions
from dropclass_deploy.serving.benchmark.report import BenchReport

__all__ = ["BenchOptions", "BenchReport", "NaiveOnnx", "bench"]
