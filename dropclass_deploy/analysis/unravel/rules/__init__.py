"""One rule an operator: from places in its result to the places in its inputs that contributed most.

A rule gives at most one place for each point, so that counts never grow: what does not go on has ended, and is reported.
"""

from dropclass_deploy.analysis.unravel.rules.table import KEEPS, POINTWISE, back_through

__all__ = ["KEEPS", "POINTWISE", "back_through"]
