"""The photos of a folder as a FiftyOne dataset with detections.

python examples/clients/fiftyone_dataset.py photos/ http://127.0.0.1:8000
"""

import sys

import fiftyone as fo

from yolox_client import Client, ImageResult


def labels(result: ImageResult) -> fo.Detections:
    """Boxes as FiftyOne has them: x, y, width and height, as fractions of the image."""
    return fo.Detections(
        detections=[
            fo.Detection(
                label=found.class_name,
                confidence=found.score,
                bounding_box=[
                    found.box.x1 / result.width,
                    found.box.y1 / result.height,
                    (found.box.x2 - found.box.x1) / result.width,
                    (found.box.y2 - found.box.y1) / result.height,
                ],
            )
            for found in result.detections
        ]
    )


folder, url = sys.argv[1:]
dataset = fo.Dataset.from_images_dir(folder)
samples = list(dataset)
with Client(url) as client:
    results = client.detect_many(sample.filepath for sample in samples)
    for sample, result in zip(samples, results, strict=True):
        if result.error is None:
            sample["yolox"] = labels(result)
            sample.save()
print(f"{len(samples)} samples; fo.launch_app(dataset) shows them")
