"""Floor 3: from a run or a trained module to an artifact folder that is served without torch."""

from dropclass_deploy.export.artifact import export_artifact
from dropclass_deploy.export.options import ExportOptions
from dropclass_deploy.export.shapes import parse_shape

__all__ = ["ExportOptions", "export_artifact", "parse_shape"]
