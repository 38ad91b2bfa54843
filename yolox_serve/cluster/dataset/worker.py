"""The model in an actor of Ray: batches of images to rows of results."""

import asyncio
import threading
from collections.abc import Coroutine, Sequence
from contextlib import AsyncExitStack
from typing import Any, Final, TypeVar

import pyarrow as pa
from pyarrow.fs import FileSystem

from service.observe.logs import configure_logs
from service.settings import Settings
from yolox_client import ImageResult, UnusableImageError
from yolox_client.options import Options
from yolox_serve.cluster.dataset.listing import NAME
from yolox_serve.cluster.dataset.rows import table_of
from yolox_serve.detect.finders.local import LocalFinder, local_finder

T = TypeVar("T")

# Images that are read ahead of the model, for each that it runs at a time.
AHEAD: Final = 4


class DetectionWorker:
    """Runs the server's own pipeline on an event loop of its own; Ray calls it with batches.

    Args:
        settings: The server's settings.
        options: Thresholds, suppression and classes.
        root: URI of the folder that the names are relative to, if images are files.
        column: Name of the column that holds image files, if they are in the rows.

    Raises:
        StartupError: The model cannot be served here.
    """

    def __init__(
        self, settings: Settings, options: Options, root: str | None, column: str | None
    ) -> None:
        configure_logs("console", "warning")
        self._files = None if root is None else FileSystem.from_uri(root)
        self._column = column
        self._stack = AsyncExitStack()
        self._loop = asyncio.new_event_loop()
        threading.Thread(target=self._loop.run_forever, daemon=True).start()
        opening = self._stack.enter_async_context(local_finder(settings, options))
        self._finder: LocalFinder = self._run(opening)
        self._room = asyncio.Semaphore(AHEAD * (settings.engine_instances or 1))

    def __call__(self, batch: pa.Table) -> pa.Table:
        """The rows of a batch's images; called by Ray, from several threads."""
        names = batch[NAME].to_pylist()
        contents = [None] * len(names) if self._column is None else batch[self._column]
        return table_of(names, self._run(self._detect_all(names, contents)))

    async def _detect_all(self, names: Sequence[str], contents: Sequence[Any]) -> list[ImageResult]:
        pairs = zip(names, contents, strict=True)
        return await asyncio.gather(*(self._detect(name, content) for name, content in pairs))

    async def _detect(self, name: str, content: Any) -> ImageResult:  # noqa: ANN401 - pyarrow's
        async with self._room:
            try:
                image = await self._read(name, content)
            except (OSError, UnusableImageError) as error:
                why = UnusableImageError(f"cannot be read: {error}")
                return ImageResult(name, 0, 0, error=why)
            (result,) = await self._finder.detect([image])
            return result

    async def _read(self, name: str, content: Any) -> bytes:  # noqa: ANN401 - pyarrow's
        if self._files is None:
            image = content.as_py()
            if not isinstance(image, bytes):
                raise UnusableImageError("the row holds no image")
            return image
        return await asyncio.to_thread(self._read_file, name)

    def _read_file(self, name: str) -> bytes:
        if self._files is None:
            raise UnusableImageError("the names are not those of files")
        filesystem, root = self._files
        with filesystem.open_input_stream(f"{root}/{name}") as stream:
            content: bytes = stream.readall()
            return content

    def _run(self, work: Coroutine[Any, Any, T]) -> T:
        return asyncio.run_coroutine_threadsafe(work, self._loop).result()
