"""A function for CVAT's automatic annotation (nuclio); cvat_nuclio.yaml describes it.

nuctl deploy --project-name cvat --path examples/clients --file examples/clients/cvat_nuclio.yaml
"""

import base64
import json
import os
from typing import Any

from yolox_client import Client, YoloxClientError


def init_context(context: Any) -> None:
    """Connect; nuclio calls this once for each worker."""
    url = os.environ.get("DETECTOR_URL", "http://127.0.0.1:8000")
    context.user_data.client = Client(url, api_key=os.environ.get("DETECTOR_KEY"))


def handler(context: Any, event: Any) -> Any:
    """The rectangles of one image, as CVAT reads them."""
    image = base64.b64decode(event.body["image"])
    confidence = float(event.body.get("threshold", 0.5))
    try:
        result = context.user_data.client.detect(image, confidence=confidence)
    except YoloxClientError as error:
        return context.Response(body=str(error), content_type="text/plain", status_code=502)
    rectangles = [
        {
            "confidence": str(found.score),
            "label": found.class_name,
            "points": list(found.box),
            "type": "rectangle",
        }
        for found in result.detections
    ]
    return context.Response(
        body=json.dumps(rectangles), headers={}, content_type="application/json", status_code=200
    )
