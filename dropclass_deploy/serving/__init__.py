"""Floor 2: run an exported artifact, prove it, time it. Never imports torch."""

from dropclass_deploy.serving.benchmark import BenchOptions, BenchReport, bench
from dropclass_deploy.serving.parity import ParityReport, VerifyOptions, verify
from dropclass_deploy.serving.segmentation import Segmentation
from dropclass_deploy.serving.segmenter import Segmenter

__all__ = [
    "BenchOptions",
    "BenchReport",
    "ParityReport",
    "Segmentation",
    "Segmenter",
    "VerifyOptions",
    "bench",
    "verify",
]
