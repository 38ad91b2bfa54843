"""Detect objects in millions of images with Ray Data: docs/ray.md.

    python deploy/ray/detect_dataset.py PHOTOS BOXES --coco boxes.json
    ray job submit -- python detect_dataset.py s3://bucket/photos s3://bucket/boxes

It is the package's own command; this file is what a Ray job can be given.
"""

import sys

from service.console import command_app, run
from yolox_serve.cluster.dataset.command import detect_dataset

if __name__ == "__main__":
    app = command_app("detect_dataset.py")
    app.default(detect_dataset)
    sys.exit(run(app, None))
