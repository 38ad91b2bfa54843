"""Photos of an S3 bucket, or at addresses: the server fetches nothing, so a client does.

python examples/clients/s3_and_urls.py s3://bucket/folder http://127.0.0.1:8000
python examples/clients/s3_and_urls.py https://example.org/photo.jpg http://127.0.0.1:8000
"""

import sys
import urllib.request
from collections.abc import Iterator

from yolox_client import Client


def images(address: str) -> Iterator[tuple[str, bytes]]:
    """Name and content of each image at an address."""
    if not address.startswith("s3://"):
        with urllib.request.urlopen(address, timeout=30) as answer:  # noqa: S310 - the user's own
            yield address, answer.read()
        return
    import boto3  # noqa: PLC0415 - needed for S3 only

    bucket, _, prefix = address.removeprefix("s3://").partition("/")
    s3 = boto3.client("s3")
    for page in s3.get_paginator("list_objects_v2").paginate(Bucket=bucket, Prefix=prefix):
        for entry in page.get("Contents", []):
            content = s3.get_object(Bucket=bucket, Key=entry["Key"])["Body"].read()
            yield entry["Key"], content


source, url = sys.argv[1:]
names: list[str] = []


def contents() -> Iterator[bytes]:
    """The images, whose names are kept for their results."""
    for name, content in images(source):
        names.append(name)
        yield content


with Client(url) as client:
    for number, result in enumerate(client.detect_many(contents())):
        found = ", ".join(each.class_name for each in result.detections)
        print(f"{names[number]}: {result.error or found or 'nothing'}")
