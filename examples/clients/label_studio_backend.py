"""A Label Studio ML backend that labels tasks in advance.

Put it where `label-studio-ml create` makes `model.py`, set DETECTOR_URL (and DETECTOR_KEY if the
server has one), and start it with `label-studio-ml start`. Labels of the labelling interface that
are not the model's are left alone.
"""

import os
from typing import Any

from label_studio_ml.model import LabelStudioMLBase
from label_studio_ml.response import ModelResponse

from yolox_client import Client


class YoloxBackend(LabelStudioMLBase):
    """Asks a YOLOX server for the boxes of each task's image."""

    def setup(self) -> None:
        """Connect."""
        key = os.environ.get("DETECTOR_KEY")
        self.client = Client(os.environ.get("DETECTOR_URL", "http://127.0.0.1:8000"), api_key=key)
        self.set("model_version", self.client.model()["contract"]["name"])

    def predict(
        self, tasks: list[dict[str, Any]], context: dict[str, Any] | None = None, **others: Any
    ) -> ModelResponse:  # the arguments are Label Studio's
        """A prediction for each task; an image that cannot be used gets an empty one."""
        label, image, value = self.label_interface.get_first_tag_occurence(
            "RectangleLabels", "Image"
        )
        paths = [self.get_local_path(task["data"][value], task_id=task["id"]) for task in tasks]
        return ModelResponse(
            predictions=[
                {"result": []}
                if result.error
                else result.to_label_studio(from_name=label, to_name=image)
                for result in self.client.detect(paths)
            ]
        )
