"""FastAPI alone: a plain endpoint, which FastAPI runs on its thread pool.

It is measured twice: as one process whose session has a thread for each CPU, and as a process for
each CPU whose session has one thread.
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
