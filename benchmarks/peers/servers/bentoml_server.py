# mypy: disable-error-code="import-not-found, untyped-decorator"
"""BentoML: a worker for each CPU."""

from pathlib import Path
from typing import Annotated

import bentoml
from bentoml.validators import ContentType

from benchmarks.peers.official import OfficialAnswer, from_environment, workers


@bentoml.service(workers=workers(), logging={"access": {"enabled": False}})
class Detector:
    """Decodes, infers and finishes in a worker."""

    def __init__(self) -> None:
        self._detector = from_environment()

    @bentoml.api(route="/detect")
    def detect(self, image: Annotated[Path, ContentType("image/jpeg")], /) -> OfficialAnswer:
        """Detect in one image."""
        return self._detector.detect([image.read_bytes()])[0]
