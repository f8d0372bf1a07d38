"""Floor 1: networks by name; each maps (N, 3, H, W) images to (N, C, H, W) logits."""

from dropclass_deploy.models.outputs import logits_of
from dropclass_deploy.models.registry import build_model, default_preprocess, model_names, rebuildable

__all__ = ["build_model", "default_preprocess", "logits_of", "model_names", "rebuildable"]
