"""Class correlation: how alike the weight vectors are by which a classifier tells its classes apart."""

from dropclass_deploy.analysis.correlation.cosine import Correlation, correlation_of, off_diagonal_sums, weight_cosines
from dropclass_deploy.analysis.correlation.section import correlation_section

__all__ = ["Correlation", "correlation_of", "correlation_section", "off_diagonal_sums", "weight_cosines"]
