"""The server's pipeline in this process."""

import asyncio
import json
import time
from collections.abc import AsyncIterator, Mapping, Sequence
from contextlib import asynccontextmanager, suppress
from typing import Final

from starlette.datastructures import ImmutableMultiDict

from service.build import ModelMaker, image_memory, load_first, make_pipeline, warm_the_rest
from service.core.suppress import DetectionOptions
from service.errors import ServiceError
from service.http.answers import answer_found
from service.http.options import read_options
from service.models.served import ServedModel
from service.observe.metrics import Metrics
from service.pipeline.stages import ImageSource
from service.settings import Settings
from yolox_client import ImageResult
from yolox_client.errors import problem_of
from yolox_client.options import Options, as_query
from yolox_client.transport.exchange import results_in

# An image that takes longer than this hangs.
IMAGE_S: Final = 600.0


class LocalFinder:
    """Runs the server's own pipeline in this process.

    Args:
        model: The model, whose pipeline has been started.
        options: Thresholds, suppression and classes.
        digest: SHA-256 of the model.
    """

    batch = 1

    def __init__(self, model: ServedModel, options: DetectionOptions, digest: str) -> None:
        self.class_names = model.class_names
        self.found_by: Mapping[str, str] = {
            **model.ref.model_dump(),
            "precision": model.engine.precision,
            "digest": digest,
        }
        self._model = model
        self._options = options

    async def detect(self, images: Sequence[bytes]) -> list[ImageResult]:
        """The result of each image file, as the server would answer it."""
        deadline = time.monotonic() + IMAGE_S
        sources = [ImageSource(image) for image in images]
        outcomes = await self._model.detector.detect_all(sources, self._options, deadline)
        results: list[ImageResult] = []
        for source, outcome in zip(sources, outcomes, strict=True):
            if isinstance(outcome, ServiceError):
                described = {"title": outcome.title, "detail": outcome.detail}
                problem = problem_of(described, outcome.status)
                results.append(ImageResult(None, 0, 0, error=problem))
            else:
                answer = answer_found(self._model.ref, self.class_names, [source], [outcome], 0.0)
                results += results_in(json.loads(bytes(answer.body)))
        return results


@asynccontextmanager
async def local_finder(settings: Settings, options: Options) -> AsyncIterator[LocalFinder]:
    """Load the model that the settings name, and run it until the context is left.

    Raises:
        StartupError: The model cannot be served here.
        ServiceError: An option does not fit the model.
    """
    asked = read_options(ImmutableMultiDict(as_query(options)))
    file, engine = load_first(settings)
    metrics = Metrics()
    pipeline = make_pipeline(settings, engine, metrics)
    maker = ModelMaker(settings, pipeline, image_memory(settings, metrics), metrics)
    model = maker.serve(engine, file.name, file.version)
    options_here = asked.resolve(model.defaults, model.class_names)
    pipeline.start()
    warming = asyncio.create_task(warm_the_rest(settings, engine))
    try:
        yield LocalFinder(model, options_here, file.digest())
    finally:
        warming.cancel()
        with suppress(asyncio.CancelledError):
            await warming
        await pipeline.stop()
