"""Floor 2: training with DropClass, evaluation, and the run folder."""

from dropclass_deploy.training.dropclass import DropClass, dropclass_loss, strip
from dropclass_deploy.training.evaluate import TorchSegmenter, evaluate_network
from dropclass_deploy.training.recipe import Recipe
from dropclass_deploy.training.recipe_file import load_recipe
from dropclass_deploy.training.run import LoadedRun, load_run
from dropclass_deploy.training.trainer import train

__all__ = [
    "DropClass",
    "LoadedRun",
    "Recipe",
    "TorchSegmenter",
    "dropclass_loss",
    "evaluate_network",
    "load_recipe",
    "load_run",
    "strip",
    "train",
]
