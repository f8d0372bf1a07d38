"""Where the runs fail: panels, confusions, worst images, errors by object size and by distance to the class border."""

from dropclass_deploy.analysis.failures.places import ErrorsByPlace
from dropclass_deploy.analysis.failures.section import FailureOptions, failures_section

__all__ = ["ErrorsByPlace", "FailureOptions", "failures_section"]
