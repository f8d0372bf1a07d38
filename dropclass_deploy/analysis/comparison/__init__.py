"""Each run against the first on the same images: what got better, what got worse, what the data cannot tell."""

from dropclass_deploy.analysis.comparison.section import comparison_section
from dropclass_deploy.analysis.comparison.sentences import headline

__all__ = ["comparison_section", "headline"]
