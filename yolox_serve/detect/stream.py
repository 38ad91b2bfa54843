"""Items through a finder: several at a time, results in order."""

import asyncio
from collections import deque
from collections.abc import AsyncIterator, Iterator, Sequence
from itertools import islice
from pathlib import Path
from typing import Final

from service.errors import ServiceError
from yolox_client import ImageResult, UnusableImageError
from yolox_serve.detect.finders.finder import Finder
from yolox_serve.detect.items import Item
from yolox_serve.detect.pictures import save_picture

Done = tuple[Item, ImageResult]

# Batches that are begun beyond those that run: the next is read while others are looked into.
AHEAD: Final = 2


class Stream:
    """Takes items through a finder.

    Args:
        finder: Finds the objects.
        concurrency: Batches that are under way at a time.
        save_images: Folder for image files with their boxes, or None. Frames are not saved here:
            their tracks are not known yet.

    Attributes:
        stopped: Set to take no more items; those that are under way are finished.
    """

    def __init__(self, finder: Finder, concurrency: int, save_images: Path | None) -> None:
        self._finder = finder
        self._concurrency = concurrency
        self._save_images = save_images
        self.stopped = False

    async def results(self, items: Iterator[Item]) -> AsyncIterator[Done]:
        """Each item with its result, in their order.

        Raises:
            YoloxClientError: The server cannot be reached, or refuses any image.
        """
        under_way: deque[asyncio.Task[list[Done]]] = deque()
        try:
            while batch := await asyncio.to_thread(self._next_batch, items):
                under_way.append(asyncio.create_task(self._detect(batch)))
                if len(under_way) >= self._concurrency + AHEAD:
                    for done in await under_way.popleft():
                        yield done
            while under_way:
                for done in await under_way.popleft():
                    yield done
        finally:
            for task in under_way:
                task.cancel()
            await asyncio.gather(*under_way, return_exceptions=True)

    def _next_batch(self, items: Iterator[Item]) -> list[Item]:
        return [] if self.stopped else list(islice(items, self._finder.batch))

    async def _detect(self, items: Sequence[Item]) -> list[Done]:
        contents = await asyncio.to_thread(_read_all, items)
        readable = [each for each in contents if isinstance(each, bytes)]
        found = iter(await self._finder.detect(readable) if readable else [])
        results = [next(found) if isinstance(each, bytes) else each for each in contents]
        if self._save_images is not None:
            work = zip(items, contents, results, strict=True)
            results = [await asyncio.to_thread(self._saved, *each) for each in work]
        return list(zip(items, results, strict=True))

    def _saved(self, item: Item, content: bytes | ImageResult, result: ImageResult) -> ImageResult:
        """The result of an item whose picture was saved, or the reason why that failed."""
        if item.pixels is not None or result.error is not None or self._save_images is None:
            return result
        try:
            if isinstance(content, bytes):
                save_picture(self._save_images, item.source, content, result)
        except (OSError, ServiceError) as error:
            return _unusable(item, f"its picture cannot be saved: {error}")
        return result


def _read_all(items: Sequence[Item]) -> list[bytes | ImageResult]:
    return [_read(item) for item in items]


def _read(item: Item) -> bytes | ImageResult:
    """The bytes of an item, or the result that says why there are none."""
    try:
        return item.read()
    except UnusableImageError as error:
        return _unusable(item, str(error))


def _unusable(item: Item, why: str) -> ImageResult:
    return ImageResult(item.source, 0, 0, error=UnusableImageError(why))
