"""The blocking client."""

import time
from collections.abc import Iterable, Iterator, Sequence
from functools import partial
from types import TracebackType
from typing import Any, Literal, Self, TypeVar, Unpack, cast, overload

import httpx2

from yolox_client.images import Channels, Encoding, ImageFile, ImageInput, PixelForm, as_file
from yolox_client.options import Options, as_query
from yolox_client.results import ImageResult
from yolox_client.transport.batches import BATCH, CONCURRENCY, batched, check_counts, in_order
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

DEFAULT_URL = "http://127.0.0.1:8000"
TIMEOUT_S = 60.0


class Client:
    """A client of one server; threads may share it.

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
        transport: httpx2.BaseTransport | None = None,
    ) -> None:
        self._http = httpx2.Client(**settings_of(url, api_key), transport=transport)
        self._timeout_s = timeout_s
        self._retry = retry or RetryPolicy()

    def __enter__(self) -> Self:
        return self

    def __exit__(
        self,
        kind: type[BaseException] | None,
        error: BaseException | None,
        traceback: TracebackType | None,
    ) -> None:
        self.close()

    def close(self) -> None:
        """Close all connections."""
        self._http.close()

    @overload
    def detect(  # type: ignore[overload-overlap]  # a text is a path, not a sequence of letters
        self,
        images: ImageInput,
        *,
        channels: Channels | None = None,
        encoding: Encoding = "png",
        **options: Unpack[Options],
    ) -> ImageResult: ...

    @overload
    def detect(
        self,
        images: Sequence[ImageInput],
        *,
        channels: Channels | None = None,
        encoding: Encoding = "png",
        **options: Unpack[Options],
    ) -> list[ImageResult]: ...

    def detect(
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
            return list(self._detect_many(images, form, options, BATCH, CONCURRENCY))
        steps = detections_in(
            [as_file(cast("ImageInput", images), form)], as_query(options), self._attempts()
        )
        return self._run(steps)[0].raise_for_error()

    def detect_many(
        self,
        images: Iterable[ImageInput],
        *,
        channels: Channels | None = None,
        encoding: Encoding = "png",
        batch: int = BATCH,
        concurrency: int = CONCURRENCY,
        **options: Unpack[Options],
    ) -> Iterator[ImageResult]:
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

    def annotate(
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
        file = as_file(image, PixelForm(channels, encoding))
        call = picture_of(file, as_query(options), f"image/{picture}")
        return self._run(reply_to(call, self._attempts())).content

    def model(self, model: str | None = None, version: str | None = None) -> dict[str, Any]:
        """The answer of `GET /model`: contract, provider, limits and defaults.

        Args:
            model: Name of the model; None for the server's default.
            version: Its version; None for the default one.

        Raises:
            YoloxClientError: The server cannot be reached, refuses the key, or has no such model.
        """
        reply = self._run(reply_to(model_of(model, version), self._attempts()))
        return parsed(reply, dict)

    def class_names(self, model: str | None = None, version: str | None = None) -> tuple[str, ...]:
        """The names of a model's classes, by class id.

        Args:
            model: Name of the model; None for the server's default.
            version: Its version; None for the default one.

        Raises:
            YoloxClientError: As for `model`.
        """
        reply = self._run(reply_to(model_of(model, version), self._attempts()))
        return parsed(reply, lambda body: tuple(map(str, body["contract"]["class_names"])))

    def _detect_many(
        self,
        images: Iterable[ImageInput],
        form: PixelForm,
        options: Options,
        batch: int,
        concurrency: int,
    ) -> Iterator[ImageResult]:
        work = partial(self._detect_batch, form=form, query=as_query(options))
        for results in in_order(work, batched(images, batch), concurrency):
            yield from results

    def _detect_batch(
        self, images: list[ImageInput], form: PixelForm, query: list[tuple[str, str]]
    ) -> list[ImageResult]:
        read = [file_or_result(image, form) for image in images]
        files = [each for each in read if isinstance(each, ImageFile)]
        found = self._run(each_detected(files, query, self._attempts())) if files else []
        return merged(read, found)

    def _attempts(self) -> Attempts:
        return Attempts(self._retry, self._timeout_s)

    def _run(self, steps: Steps[T]) -> T:
        """Take each step, and give what comes of them."""
        outcome: Reply | Failure | None = None
        try:
            while True:
                step = steps.send(outcome)
                if isinstance(step, Send):
                    outcome = self._send(step)
                else:
                    time.sleep(step.seconds)
                    outcome = None
        except StopIteration as end:
            result: T = end.value
            return result

    def _send(self, step: Send) -> Reply | Failure:
        try:
            end = time.monotonic() + step.timeout_s
            with self._http.stream(**written(step.call, step.timeout_s)) as response:
                content = bytearray()
                for part in response.iter_bytes():
                    content += part
                    if time.monotonic() > end:
                        raise TimeoutError("the answer came too slowly")
                return Reply(response.status_code, response.headers, bytes(content))
        except NO_ANSWER as error:
            return failure(error, self._http.base_url)
