"""The classes of the synthetic street and the link that is planted in it."""

from __future__ import annotations

from dropclass_deploy.core.classes import ClassTable

CLASSES = ClassTable(
    names=(
        "sky",
        "road",
        "building",
        "vegetation",
        "pavement",
        "grass",
        "car",
        "cycle_path",
        "pole",
        "person",
        "sign",
        "cyclist",
    ),
    palette=(
        (70, 130, 180),
        (128, 64, 128),
        (70, 70, 70),
        (107, 142, 35),
        (244, 35, 232),
        (152, 251, 152),
        (0, 0, 142),
        (190, 90, 60),
        (153, 153, 153),
        (220, 20, 60),
        (220, 220, 0),
        (119, 11, 32),
    ),
)
SKY, ROAD, BUILDING, VEGETATION, PAVEMENT, GRASS, CAR, CYCLE_PATH, POLE, PERSON, SIGN, CYCLIST = range(len(CLASSES))

PLANTED_CLASS = CYCLIST
"""Id of the rare class that in train and val always stands on the context class."""
CONTEXT_CLASS = CYCLE_PATH
"""Id of the class that it stands on there."""
