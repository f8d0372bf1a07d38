"""Grad-CAM for segmentation: where in the image a class gets its logits from."""

from dropclass_deploy.analysis.grad_cam.maps import class_maps, maps_on_image
from dropclass_deploy.analysis.grad_cam.pairs import Pair, confused_pairs, named_pairs
from dropclass_deploy.analysis.grad_cam.section import grad_cam_section

__all__ = ["Pair", "class_maps", "confused_pairs", "grad_cam_section", "maps_on_image", "named_pairs"]
