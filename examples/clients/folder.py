"""Every photo of a folder, from an asynchronous program, as a COCO dataset.

python examples/clients/folder.py photos/ http://127.0.0.1:8000 > boxes.json
"""

import asyncio
import json
import sys
from pathlib import Path

from yolox_client import AsyncClient, coco_dataset


async def main(photos: list[Path], url: str) -> None:
    """Print the dataset, and the photos that could not be used on standard error."""
    async with AsyncClient(url) as client:
        results = [result async for result in client.detect_many(photos, concurrency=8)]
        names = await client.class_names()
    for result in results:
        if result.error is not None:
            print(f"{result.filename}: {result.error}", file=sys.stderr)
    print(json.dumps(coco_dataset(results, names)))


folder, url = sys.argv[1:]
asyncio.run(main(sorted(Path(folder).glob("*.jpg")), url))
