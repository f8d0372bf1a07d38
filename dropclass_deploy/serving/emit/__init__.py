"""Files for serving stacks that are there already; written from an artifact, without torch and without the stack."""

from dropclass_deploy.serving.emit.triton_repository import TritonOptions, emit_triton

__all__ = ["TritonOptions", "emit_triton"]
