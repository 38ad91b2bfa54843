"""A server that is asked."""

from collections.abc import AsyncIterator, Sequence
from contextlib import asynccontextmanager
from typing import Final

from yolox_client import AsyncClient, ImageResult
from yolox_client.options import Options

BATCH: Final = 4


class RemoteFinder:
    """Asks a server.

    Args:
        client: The client.
        class_names: The names of the model's classes.
        options: Options of every request.
    """

    batch = BATCH

    def __init__(self, client: AsyncClient, class_names: tuple[str, ...], options: Options) -> None:
        self.class_names = class_names
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
        yield RemoteFinder(
            client, await client.class_names(options.get("model"), options.get("version")), options
        )
