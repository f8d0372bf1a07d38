"""The spurious-correlation probe: composites in which a second image tells the class, and what networks make of it."""

from dropclass_deploy.analysis.spurious.composites import Layout, Link
from dropclass_deploy.analysis.spurious.fitting import Fitting
from dropclass_deploy.analysis.spurious.probe import ProbeOptions, run_probe
from dropclass_deploy.analysis.spurious.result import ProbeResult

__all__ = ["Fitting", "Layout", "Link", "ProbeOptions", "ProbeResult", "run_probe"]
