# mypy: disable-error-code="import-not-found, misc"
"""LitServe: a worker for each CPU, which takes batches of the waiting requests."""

from typing import Annotated

import litserve
from fastapi import Body

from benchmarks.peers.official import OfficialAnswer, Prepared, from_environment, port, workers

MAX_BATCH = 8


class DetectorApi(litserve.LitAPI):
    """Decodes, infers and finishes in a worker."""

    def setup(self, device: str) -> None:  # noqa: ARG002 - LitServe's signature
        """Load the model."""
        self._detector = from_environment()

    def decode_request(self, request: Annotated[bytes, Body(media_type="image/jpeg")]) -> Prepared:
        """From the body to a tensor."""
        return self._detector.prepare(request)

    def batch(self, inputs: list[Prepared]) -> list[Prepared]:
        """Keep the sizes beside the tensors."""
        return inputs

    def predict(self, batch: list[Prepared]) -> list[OfficialAnswer]:
        """Detect in a batch."""
        return self._detector.detect_prepared(batch)

    def unbatch(self, output: list[OfficialAnswer]) -> list[OfficialAnswer]:
        """One answer for each image."""
        return output

    def encode_response(self, output: OfficialAnswer) -> OfficialAnswer:
        """LitServe writes the JSON."""
        return output


if __name__ == "__main__":
    server = litserve.LitServer(
        DetectorApi(max_batch_size=MAX_BATCH, api_path="/detect"),
        accelerator="cpu",
        workers_per_device=workers(),
        fast_queue=True,
    )
    server.run(
        host="127.0.0.1",
        port=port(),
        generate_client_file=False,
        log_level="warning",
        access_log=False,
    )
