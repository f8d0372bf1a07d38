"""Unravelling a segmentation: from predicted pixels back to the image points that caused them."""

from dropclass_deploy.analysis.unravel.fixations import Fixations, fixations, fixations_on_image
from dropclass_deploy.analysis.unravel.objects import FoundObject, connected_objects, find_objects
from dropclass_deploy.analysis.unravel.section import Options, unravel_section

__all__ = [
    "Fixations",
    "FoundObject",
    "Options",
    "connected_objects",
    "find_objects",
    "fixations",
    "fixations_on_image",
    "unravel_section",
]
