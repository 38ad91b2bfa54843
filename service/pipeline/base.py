"""The interface of pipelines, the same on whichever threads the stages run, and of watchers."""

from typing import Protocol

from service.pipeline.jobs import Job
from service.pipeline.stages import DetectedImage, ImageTask
from service.queue.capacity import Permit


class Watcher(Protocol):
    """Looks at the images of clients behind their requests, without holding them up."""

    def offer(self, task: ImageTask, found: DetectedImage) -> None:
        """An image succeeded."""

    def disagreed(self, task: ImageTask, found: DetectedImage) -> None:
        """Another version of the model finds something else in the image."""


class Pipeline(Protocol):
    """The way of an image from its bytes to its boxes."""

    def start(self) -> None:
        """Start the pipeline's own threads; the batcher is started apart."""

    async def detect(self, permit: Permit, job: Job[ImageTask], deadline: float) -> DetectedImage:
        """Take an image that has its permit through all stages.

        Raises:
            ServiceError: The image cannot be used, the deadline passed, or the model failed.
        """

    def stop(self) -> None:
        """End the pipeline's own threads; the batcher has stopped."""
