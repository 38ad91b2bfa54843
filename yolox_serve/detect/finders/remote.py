"""A server that is asked."""

from collections.abc import AsyncIterator, Mapping, Sequence
from contextlib import asynccontextmanager
from typing import Any, Final

from yolox_client import AsyncClient, ImageResult, UnexpectedAnswerError
from yolox_client.options import Options

BATCH: Final = 4


class RemoteFinder:
    """Asks a server.

    Args:
        client: The client.
        class_names: The names of the model's classes.
        options: Options of every request.
        described: The server's description of the model.

    Raises:
        UnexpectedAnswerError: It is not one.
    """

    batch = BATCH

    def __init__(self, client: AsyncClient, options: Options, described: Mapping[str, Any]) -> None:
        try:
            contract, engine = described["contract"], described["engine"]
            self.class_names = tuple(map(str, contract["class_names"]))
            named = {name: str(contract[name]) for name in ("name", "version")}
            run_by = {name: str(engine[name]) for name in ("provider", "precision")}
            self.found_by: Mapping[str, str] = named | run_by
        except (LookupError, TypeError) as error:
            raise UnexpectedAnswerError(
                f"the server does not describe its model as this service does: {error!r}"
            ) from error
        self._client = client
        self._options = options

    async def detect(self, images: Sequence[bytes]) -> list[ImageResult]:
        """The result of each image file.

        Raises:
            YoloxClientError: The server cannot be reached, or refuses any image.
        """
        return await self._client.detect(list(images), **self._options)


@asynccontextmanager
async def remote_finder(
    url: str, api_key: str | None, options: Options
) -> AsyncIterator[RemoteFinder]:
    """Connect to a server until the context is left.

    Raises:
        YoloxClientError: The server cannot be reached, or refuses the key.
        ValueError: The address is not one.
    """
    async with AsyncClient(url, api_key=api_key) as client:
        described = await client.model(options.get("model"), options.get("version"))
        yield RemoteFinder(client, options, described)
