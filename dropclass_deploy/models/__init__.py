"""Floor 1: networks by name; each maps (N, 3, H, W) images to (N, C, H, W) logits.

``vgg_resnet_classifier`` is the exception, which build_model does not know: its logits (N, C) are those of whole images.
"""

from dropclass_deploy.models.outputs import logits_of
from dropclass_deploy.models.registry import build_model, default_preprocess, model_names, rebuildable
from dropclass_deploy.models.vgg_resnet import vgg_resnet_classifier

__all__ = ["build_model", "default_preprocess", "logits_of", "model_names", "rebuildable", "vgg_resnet_classifier"]
