"""One photo: what is in it, and a picture of it.

python examples/clients/photo.py photo.jpg http://127.0.0.1:8000
"""

import sys
from pathlib import Path

from yolox_client import Client, YoloxClientError

photo, url = sys.argv[1:]

with Client(url) as client:
    try:
        result = client.detect(photo, confidence=0.3)
    except YoloxClientError as error:
        sys.exit(f"error: {error}")
    for found in result.detections:
        print(f"{found.class_name} {found.score:.2f} at {found.box}")
    Path("boxes.jpg").write_bytes(client.annotate(photo, confidence=0.3))
