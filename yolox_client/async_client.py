"""The client for asyncio."""

import asyncio
from collections import deque
from collections.abc import AsyncIterator, Iterable, Sequence
from types import TracebackType
from typing import Any, Literal, Self, TypeVar, Unpack, cast, overload

import httpx2

from yolox_client.client import DEFAULT_URL, TIMEOUT_S
from yolox_client.images import Channels, Encoding, ImageFile, ImageInput, PixelForm, as_file
from yolox_client.options import Options, as_query
from yolox_client.results import ImageResult
from yolox_client.transport.batches import BATCH, CONCURRENCY, batched, check_counts
from yolox_client.transport.exchange import (
    Failure,
    Reply,
    Send,
    Steps,
    detections_in,
    each_detected,
    file_or_result,
    merged,
    model_of,
    parsed,
    picture_of,
    reply_to,
)
from yolox_client.transport.retry import Attempts, RetryPolicy
from yolox_client.transport.wire import NO_ANSWER, failure, settings_of, written

T = TypeVar("T")


class AsyncClient:
    """A client of one server for asyncio; the tasks of one event loop may share it.

    Args:
        url: The server's address.
        api_key: The API key, if the server requires one.
        timeout_s: Seconds for a request with all its repetitions.
        retry: How failed requests are repeated.
        transport: Another transport of httpx2's, such as one for a unix socket.

    Raises:
        ValueError: The address is not one.
    """

    def __init__(
        self,
        url: str = DEFAULT_URL,
        *,
        api_key: str | None = None,
        timeout_s: float = TIMEOUT_S,
        retry: RetryPolicy | None = None,
        transport: httpx2.AsyncBaseTransport | None = None,
    ) -> None:
        self._http = httpx2.AsyncClient(**settings_of(url, api_key), transport=transport)
        self._timeout_s = timeout_s
        self._retry = retry or RetryPolicy()

    async def __aenter__(self) -> Self:
        return self

    async def __aexit__(
        self,
        kind: type[BaseException] | None,
        error: BaseException | None,
        traceback: TracebackType | None,
    ) -> None:
        await self.close()

    async def close(self) -> None:
        """Close all connections."""
        await self._http.aclose()

    @overload
    async def detect(  # type: ignore[overload-overlap]  # a text is a path, not a sequence of letters
        self,
        images: ImageInput,
        *,
        channels: Channels | None = None,
        encoding: Encoding = "png",
        **options: Unpack[Options],
    ) -> ImageResult: ...

    @overload
    async def detect(
        self,
        images: Sequence[ImageInput],
        *,
        channels: Channels | None = None,
        encoding: Encoding = "png",
        **options: Unpack[Options],
    ) -> list[ImageResult]: ...

    async def detect(
        self,
        images: ImageInput | Sequence[ImageInput],
        *,
        channels: Channels | None = None,
        encoding: Encoding = "png",
        **options: Unpack[Options],
    ) -> ImageResult | list[ImageResult]:
        """Find objects in one image, or in each of a list.

        Args:
            images: An image, or a list or tuple of any length: paths, bytes, open binary files,
                arrays of uint8 or Pillow images.
            channels: Order of the colours in arrays: `BGR` for OpenCV's, else mostly `RGB`.
            encoding: How arrays and Pillow images travel: `png`, or `jpeg`, which is quicker.
            **options: The options of `POST /detect`.

        Returns:
            The result of the image, or a list of results in the order of the images. In a list,
            an image that cannot be used has its `error`.

        Raises:
            ProblemError: The server refuses the request, or the one image.
            YoloxClientError: The image cannot be read, or the server cannot be reached.
            ValueError: An array has no known order of colours, or is no image.
        """
        form = PixelForm(channels, encoding)
        if isinstance(images, list | tuple):
            found = self._detect_many(images, form, options, BATCH, CONCURRENCY)
            return [result async for result in found]
        file = await asyncio.to_thread(as_file, cast("ImageInput", images), form)
        steps = detections_in([file], as_query(options), self._attempts())
        return (await self._run(steps))[0].raise_for_error()

    def detect_many(
        self,
        images: Iterable[ImageInput],
        *,
        channels: Channels | None = None,
        encoding: Encoding = "png",
        batch: int = BATCH,
        concurrency: int = CONCURRENCY,
        **options: Unpack[Options],
    ) -> AsyncIterator[ImageResult]:
        """Find objects in any number of images, with several requests under way at a time.

        Images are taken as there is room for them; results come in their order. An image that
        cannot be used has its `error`.

        Args:
            images: The images, as `detect` takes them.
            channels: Order of the colours in arrays.
            encoding: How arrays and Pillow images travel.
            batch: Images in a request.
            concurrency: Requests at a time.
            **options: The options of `POST /detect`.

        Raises:
            YoloxClientError: The server cannot be reached, or refuses any image.
        """
        check_counts(batch, concurrency)
        return self._detect_many(images, PixelForm(channels, encoding), options, batch, concurrency)

    async def annotate(
        self,
        image: ImageInput,
        *,
        picture: Literal["jpeg", "png"] = "jpeg",
        channels: Channels | None = None,
        encoding: Encoding = "png",
        **options: Unpack[Options],
    ) -> bytes:
        """The image with its boxes, as a file that the server draws.

        Raises:
            YoloxClientError: As for `detect`.
        """
        form = PixelForm(channels, encoding)
        file = await asyncio.to_thread(as_file, image, form)
        call = picture_of(file, as_query(options), f"image/{picture}")
        return (await self._run(reply_to(call, self._attempts()))).content

    async def model(self, model: str | None = None, version: str | None = None) -> dict[str, Any]:
        """The answer of `GET /model`: contract, provider, limits and defaults.

        Args:
            model: Name of the model; None for the server's default.
            version: Its version; None for the default one.

        Raises:
            YoloxClientError: The server cannot be reached, refuses the key, or has no such model.
        """
        reply = await self._run(reply_to(model_of(model, version), self._attempts()))
        return parsed(reply, dict)

    async def class_names(
        self, model: str | None = None, version: str | None = None
    ) -> tuple[str, ...]:
        """The names of a model's classes, by class id.

        Args:
            model: Name of the model; None for the server's default.
            version: Its version; None for the default one.

        Raises:
            YoloxClientError: As for `model`.
        """
        reply = await self._run(reply_to(model_of(model, version), self._attempts()))
        return parsed(reply, lambda body: tuple(map(str, body["contract"]["class_names"])))

    async def _detect_many(
        self,
        images: Iterable[ImageInput],
        form: PixelForm,
        options: Options,
        batch: int,
        concurrency: int,
    ) -> AsyncIterator[ImageResult]:
        query = as_query(options)
        under_way: deque[asyncio.Task[list[ImageResult]]] = deque()
        try:
            for part in batched(images, batch):
                under_way.append(asyncio.create_task(self._detect_batch(part, form, query)))
                if len(under_way) >= concurrency:
                    for result in await under_way.popleft():
                        yield result
            while under_way:
                for result in await under_way.popleft():
                    yield result
        finally:
            for task in under_way:
                task.cancel()
            await asyncio.gather(*under_way, return_exceptions=True)

    async def _detect_batch(
        self, images: list[ImageInput], form: PixelForm, query: list[tuple[str, str]]
    ) -> list[ImageResult]:
        read = [await asyncio.to_thread(file_or_result, image, form) for image in images]
        files = [each for each in read if isinstance(each, ImageFile)]
        found = await self._run(each_detected(files, query, self._attempts())) if files else []
        return merged(read, found)

    def _attempts(self) -> Attempts:
        return Attempts(self._retry, self._timeout_s)

    async def _run(self, steps: Steps[T]) -> T:
        """Take each step, and give what comes of them."""
        outcome: Reply | Failure | None = None
        try:
            while True:
                step = steps.send(outcome)
                if isinstance(step, Send):
                    outcome = await self._send(step)
                else:
                    await asyncio.sleep(step.seconds)
                    outcome = None
        except StopIteration as end:
            result: T = end.value
            return result

    async def _send(self, step: Send) -> Reply | Failure:
        try:
            async with asyncio.timeout(step.timeout_s):
                response = await self._http.request(**written(step.call, step.timeout_s))
                return Reply(response.status_code, response.headers, response.content)
        except NO_ANSWER as error:
            return failure(error, self._http.base_url)
