"""Download one file of known size and checksum, resuming where an earlier attempt stopped."""

from collections.abc import Callable
from dataclasses import dataclass
from pathlib import Path
from typing import Final

import httpx2

from model_export.checksum import sha256_of
from model_export.errors import ModelExportError

TIMEOUT: Final = httpx2.Timeout(30.0, connect=10.0)
# Maximum number of resumed requests, as long as each one makes progress.
MAX_RESUMES: Final = 5

Progress = Callable[[int], None]


@dataclass(frozen=True, slots=True)
class RemoteFile:
    """A file to download, with its size and checksum.

    Attributes:
        url: Where it is.
        size: Its length in bytes.
        sha256: Its SHA-256 sum, 64 hexadecimal digits.
    """

    url: str
    size: int
    sha256: str


class DownloadError(ModelExportError):
    """The server did not deliver the file, or delivered a different one."""


def download(remote: RemoteFile, target: Path, on_progress: Progress) -> None:
    """Download a file, unless the target is there and has the right sum.

    The bytes go to `<target>.part`, from which a later call resumes. The target appears only once
    it is complete and its sum is verified.

    Args:
        remote: The file.
        target: The path to write; its folder is created.
        on_progress: Called repeatedly with the number of bytes downloaded so far.

    Raises:
        DownloadError: The server cannot be reached, cuts the connection, refuses, or has a file
            of another length or sum.
        ModelExportError: The target cannot be written.
    """
    part = target.with_name(f"{target.name}.part")
    try:
        if target.is_file() and sha256_of(target) == remote.sha256:
            return
        target.parent.mkdir(parents=True, exist_ok=True)
        with httpx2.Client(timeout=TIMEOUT, follow_redirects=True) as client:
            _complete(client, remote, part, on_progress)
        _check_sum(remote, part)
        part.replace(target)
    except OSError as error:
        raise ModelExportError(f"cannot write {target}: {error.strerror or error}") from error


def _complete(client: httpx2.Client, remote: RemoteFile, part: Path, on_progress: Progress) -> None:
    """Ask for what is missing until the part has its full size."""
    cause: Exception | None = None
    for _ in range(1 + MAX_RESUMES):
        have = _size(part)
        if have == remote.size:
            return
        try:
            _receive(client, remote, part, on_progress)
        except (httpx2.HTTPError, httpx2.InvalidURL) as error:
            cause = error
            if _size(part) == have:
                break
    if (have := _size(part)) != remote.size:
        reason = str(cause or "") or "the connection was cut"
        raise DownloadError(
            f"cannot download {remote.url}: {reason}"
            + (f"; {have:,} of {remote.size:,} bytes are kept, run again to go on" if have else "")
        ) from cause


def _receive(client: httpx2.Client, remote: RemoteFile, part: Path, on_progress: Progress) -> None:
    """Append what one request brings, or start anew where the server cannot go on."""
    have = _size(part)
    # A compressed answer would have another length and other ranges.
    headers = {"Accept-Encoding": "identity"} | ({"Range": f"bytes={have}-"} if have else {})
    with client.stream("GET", remote.url, headers=headers) as response:
        resumed = response.status_code == httpx2.codes.PARTIAL_CONTENT
        content_range = response.headers.get("Content-Range", "")
        if response.status_code == httpx2.codes.RANGE_NOT_SATISFIABLE or (
            resumed and not content_range.startswith(f"bytes {have}-")
        ):
            part.unlink(missing_ok=True)
            return
        _check_answer(response, remote)
        with part.open("ab" if resumed else "wb") as file:
            for chunk in response.iter_bytes():
                file.write(chunk)
                on_progress(file.tell())
                if file.tell() > remote.size:
                    raise DownloadError(f"{remote.url} has more than {remote.size:,} bytes")


def _check_answer(response: httpx2.Response, remote: RemoteFile) -> None:
    if not response.is_success:
        raise DownloadError(
            f"{response.url} answers {response.status_code} {response.reason_phrase}"
        )
    total = response.headers.get("Content-Range", "").rpartition("/")[2]
    total = total or response.headers.get("Content-Length", "")
    if total.isdigit() and int(total) != remote.size:
        raise DownloadError(
            f"{response.url} has {int(total):,} bytes, and the released file {remote.size:,}"
        )


def _check_sum(remote: RemoteFile, part: Path) -> None:
    found = sha256_of(part)
    if found != remote.sha256:
        part.unlink()
        raise DownloadError(
            f"{remote.url} has the wrong SHA-256 sum and was deleted: "
            f"expected {remote.sha256}, got {found}"
        )


def _size(path: Path) -> int:
    return path.stat().st_size if path.exists() else 0
