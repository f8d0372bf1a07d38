"""The bias card: why a model says what it says, as JSON, pictures and one self-contained page."""

from dropclass_deploy.analysis.bias_card.analyse import analyse
from dropclass_deploy.analysis.bias_card.options import AnalysisOptions

__all__ = ["AnalysisOptions", "analyse"]
