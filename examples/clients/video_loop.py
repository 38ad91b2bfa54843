"""A camera or a video: the objects of each frame, with several frames under way at a time.

python examples/clients/video_loop.py video.mp4 http://127.0.0.1:8000     (0 for the camera)
"""

import sys
from collections.abc import Iterator

import cv2

from yolox_client import Client


def frames(source: str) -> Iterator[cv2.typing.MatLike]:
    """(h, w, 3) uint8 BGR frames."""
    capture = cv2.VideoCapture(int(source) if source.isdecimal() else source)
    while True:
        read, frame = capture.read()
        if not read:
            return
        yield frame


video, url = sys.argv[1:]
with Client(url) as client:
    results = client.detect_many(
        frames(video), channels="BGR", encoding="jpeg", batch=1, concurrency=4
    )
    for number, result in enumerate(results):
        print(number, *(f"{found.class_name}:{found.score:.2f}" for found in result.detections))
