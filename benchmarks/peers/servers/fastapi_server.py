"""FastAPI alone: a plain endpoint, which FastAPI runs on its thread pool.

Its two shapes are one process whose session has a thread for each CPU, and a process for each CPU
whose sessions have one thread.
"""

from typing import Annotated

import fastapi

from benchmarks.peers.official import OfficialAnswer, from_environment

app = fastapi.FastAPI()
detector = from_environment()


@app.post("/detect")
def detect(image: Annotated[bytes, fastapi.Body(media_type="image/jpeg")]) -> OfficialAnswer:
    """Detect in one image."""
    return detector.detect([image])[0]
