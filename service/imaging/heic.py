"""HEIC, the format of most phones' cameras, where the extra `heic` is installed."""

from typing import ClassVar

from PIL import ImageFile as PillowImageFile

from service.imaging.image_file import Size, open_with_pillow
from service.imaging.kinds import reads_heic
from service.imaging.pillow_files import PillowFile
from service.imaging.pixels import Pixels

if reads_heic():
    import pi_heif

    pi_heif.register_heif_opener(thumbnails=False, decode_threads=1)


class HeicFile(PillowFile):
    """A HEIC, of which the primary image counts; the decoder turns it upright."""

    kind = "HEIC"
    # The decoder's planes and its interleaved pixels, Pillow's copy and its image, and ours.
    peak: ClassVar[int] = 18

    def open_image(self, content: bytes) -> PillowImageFile.ImageFile:
        """Read the header."""
        return open_with_pillow(content, ("HEIF",))

    def decode(self, fit: Size | None) -> tuple[Pixels, int]:  # noqa: ARG002 - only JPEGs get smaller
        """Decode the pixels, upright."""
        self._image.load()
        return self.finish(self._image), 1
