"""Floor 1: data sets by name, as NumPy arrays of images and class ids."""

from dropclass_deploy.data.dataset import Dataset
from dropclass_deploy.data.images import read_image, read_mask
from dropclass_deploy.data.layout import Layout, SplitFiles
from dropclass_deploy.data.registry import open_dataset, survey
from dropclass_deploy.data.statistics import ClassStatistics, count_classes, enet_weights, median_frequency_weights

__all__ = [
    "ClassStatistics",
    "Dataset",
    "Layout",
    "SplitFiles",
    "count_classes",
    "enet_weights",
    "median_frequency_weights",
    "open_dataset",
    "read_image",
    "read_mask",
    "survey",
]
