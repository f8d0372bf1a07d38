"""How far a network's probabilities can be believed: reliability bins and the expected calibration error."""

from dropclass_deploy.analysis.calibration.histogram import Calibration
from dropclass_deploy.analysis.calibration.section import calibration_section

__all__ = ["Calibration", "calibration_section"]
