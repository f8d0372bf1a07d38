"""What is analysed: trained networks, and one pass of each over a split that every part of the analysis watches."""

from dropclass_deploy.analysis.subject.device import device_named
from dropclass_deploy.analysis.subject.per_image import Confusions, image_ious, image_means
from dropclass_deploy.analysis.subject.section import Section
from dropclass_deploy.analysis.subject.subject import Subject, open_subjects
from dropclass_deploy.analysis.subject.sweep import Observer, Seen, sweep

__all__ = [
    "Confusions",
    "Observer",
    "Section",
    "Seen",
    "Subject",
    "device_named",
    "image_ious",
    "image_means",
    "open_subjects",
    "sweep",
]
