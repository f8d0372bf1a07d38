"""The recipe: its sections and their limits, and how a file is read."""

from dropclass_deploy.training.recipe.components import ClassMixOptions, ComponentOptions, MedianFrequencyOptions
from dropclass_deploy.training.recipe.reading import load_recipe, parse_recipe
from dropclass_deploy.training.recipe.sampling_options import (
    CurriculumOptions,
    EnetWeightsOptions,
    RareClassSamplingOptions,
    ResampleOptions,
)
from dropclass_deploy.training.recipe.sections import MethodSection, Photometric, Recipe, TrainSection

__all__ = [
    "ClassMixOptions",
    "ComponentOptions",
    "CurriculumOptions",
    "EnetWeightsOptions",
    "MedianFrequencyOptions",
    "MethodSection",
    "Photometric",
    "RareClassSamplingOptions",
    "Recipe",
    "ResampleOptions",
    "TrainSection",
    "load_recipe",
    "parse_recipe",
]
