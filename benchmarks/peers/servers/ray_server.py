# mypy: disable-error-code="import-not-found, attr-defined, misc, untyped-decorator"
"""Ray Serve: a replica for each CPU, which takes batches of the requests within Ray's wait."""

import logging
import os
from dataclasses import asdict

import ray
from ray import serve
from starlette.requests import Request

from benchmarks.peers.official import OfficialAnswer, from_environment, port, workers

MAX_BATCH = 8
NICENESS = "RAY_worker_niceness"
QUIET = {"log_level": "ERROR", "enable_access_log": False}


@serve.deployment(
    num_replicas=workers(),
    max_ongoing_requests=4 * MAX_BATCH,
    ray_actor_options={"num_cpus": 1},
    logging_config=QUIET,
)
class Detector:
    """Decodes, infers and finishes in a replica."""

    def __init__(self) -> None:
        self._detector = from_environment()

    @serve.batch(max_batch_size=MAX_BATCH)
    async def _detect(self, images: list[bytes]) -> list[OfficialAnswer]:
        return self._detector.detect(images)

    async def __call__(self, request: Request) -> dict[str, object]:
        """Detect in one image; Ray writes the JSON."""
        return asdict(await self._detect(await request.body()))


if __name__ == "__main__":
    # By default Ray's workers give way to all other processes, wrk included.
    os.environ[NICENESS] = "0"
    ray.init(num_cpus=workers(), include_dashboard=False, logging_level=logging.ERROR)
    serve.start(http_options={"host": "127.0.0.1", "port": port()}, logging_config=QUIET)
    serve.run(Detector.bind(), route_prefix="/detect", blocking=True)
