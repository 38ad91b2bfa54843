# mypy: disable-error-code="import-not-found, misc"
"""mosec: one stage with a worker process for each CPU, behind mosec's web server."""

import mosec

from benchmarks.peers.official import OfficialAnswer, from_environment, to_json, workers


class Detector(mosec.Worker):
    """Decodes, infers and finishes in a worker."""

    def __init__(self) -> None:
        super().__init__()
        self._detector = from_environment()

    def deserialize(self, data: bytes) -> bytes:
        """The body is the image."""
        return data

    def forward(self, data: bytes) -> OfficialAnswer:
        """Detect in one image."""
        return self._detector.detect([data])[0]

    def serialize(self, data: OfficialAnswer) -> bytes:
        """The answer as JSON."""
        return to_json(data)


if __name__ == "__main__":
    server = mosec.Server()
    server.append_worker(Detector, num=workers(), route="/detect")
    server.run()
