"""TensorRT engines: from an artifact's ONNX file to a plan beside it, for this GPU or for one that is elsewhere."""

from dropclass_deploy.export.engines.builder import EngineResult, build_engine
from dropclass_deploy.export.engines.options import EngineOptions

__all__ = ["EngineOptions", "EngineResult", "build_engine"]
