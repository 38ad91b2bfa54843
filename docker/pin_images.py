#!/usr/bin/env python3
"""Write the digest of every image that is taken from a registry behind its tag.

`make pin-images` runs it where a registry can be reached, and a commit keeps the result. It asks
skopeo, else Docker's buildx, which know the credentials and the mirrors.
"""

import re
import shutil
import subprocess
import sys
from pathlib import Path

# The lines that name such images, with a tag, and with the digest of an earlier run.
REFERENCE = re.compile(
    r"^(?P<before>ARG PYTHON_IMAGE=|\s+image: )(?P<name>(?!yolox-)[\w./-]+:[\w.-]+)"
    r"(?:@sha256:[0-9a-f]{64})?(?P<after>\s.*|)$",
    re.MULTILINE,
)
DIGEST = re.compile(r"sha256:[0-9a-f]{64}")
ROOT = Path(__file__).parents[1]
FILES = ("docker/service.Dockerfile", "docker/model_export.Dockerfile", "docker-compose.yml")


def digest_of(name: str) -> str:
    """Ask the registry for the digest of an image's index, which covers all its architectures.

    Raises:
        RuntimeError: Neither tool is installed, or the registry gave no digest.
    """
    if shutil.which("skopeo"):
        command = ["skopeo", "inspect", "--format", "{{.Digest}}", f"docker://{name}"]
    elif shutil.which("docker"):
        command = ["docker", "buildx", "imagetools", "inspect", name]
        command += ["--format", "{{.Manifest.Digest}}"]
    else:
        raise RuntimeError("install skopeo or Docker with buildx: one of them asks the registry")
    done = subprocess.run(command, capture_output=True, text=True, check=False)  # noqa: S603
    digest = done.stdout.strip()
    if done.returncode or not DIGEST.fullmatch(digest):
        raise RuntimeError(f"no digest of {name}: {done.stderr.strip() or digest}")
    return digest


def pinned(text: str) -> str:
    """The text of a file with the digest of each image as it is now.

    Raises:
        RuntimeError: See `digest_of`.
    """
    return REFERENCE.sub(
        lambda found: (
            f"{found['before']}{found['name']}@{digest_of(found['name'])}{found['after']}"
        ),
        text,
    )


def main(root: Path) -> int:
    """Pin the images of a checkout; on an error, change no file."""
    try:
        texts = {root / name: pinned((root / name).read_text(encoding="utf-8")) for name in FILES}
    except RuntimeError as error:
        sys.stderr.write(f"error: {error}\n")
        return 1
    for path, text in texts.items():
        path.write_text(text, encoding="utf-8")
    return 0


if __name__ == "__main__":
    sys.exit(main(Path(sys.argv[1]) if len(sys.argv) > 1 else ROOT))
