"""The parity gate: a candidate against its reference, class by class, with a verdict."""

from dropclass_deploy.serving.parity.options import VerifyOptions
from dropclass_deploy.serving.parity.report import ParityReport
from dropclass_deploy.serving.parity.verification import verify

__all__ = ["ParityReport", "VerifyOptions", "verify"]
