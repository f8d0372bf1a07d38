"""Items that wait for one worker, and leave in batches; knows nothing of images or of HTTP."""

from dropclass_deploy.serving.batching.admission import Admission, Place, QueueFullError
from dropclass_deploy.serving.batching.batcher import Batcher, Cancelled, DeadlinePassedError
from dropclass_deploy.serving.batching.worth import BatchWorth

__all__ = ["Admission", "BatchWorth", "Batcher", "Cancelled", "DeadlinePassedError", "Place", "QueueFullError"]
