"""Floor 2: training with DropClass, evaluation, and the run folder."""

from dropclass_deploy.training.dropclass import DropClass, dropclass_loss, strip
from dropclass_deploy.training.evaluate import TorchSegmenter, evaluate_network
from dropclass_deploy.training.loop.trainer import train
from dropclass_deploy.training.recipe import Recipe, load_recipe
from dropclass_deploy.training.runs.head_scores import evaluate_heads
from dropclass_deploy.training.runs.run import LoadedRun, load_run

__all__ = [
    "DropClass",
    "LoadedRun",
    "Recipe",
    "TorchSegmenter",
    "dropclass_loss",
    "evaluate_heads",
    "evaluate_network",
    "load_recipe",
    "load_run",
    "strip",
    "train",
]
