"""How the pixels of a TIFF are stored, and which ways are read."""

from dataclasses import dataclass
from typing import Final

from service.imaging.tiff.directory import Directory

# Numbers of tags, beside those of strips and tiles.
BITS, COMPRESSION, PHOTOMETRIC, SAMPLES = 258, 259, 262, 277
PLANAR, INK_SET, EXTRA_SAMPLES, SAMPLE_FORMAT = 284, 332, 338, 339
# Photometric interpretations; the last is ours, for CMYK's number with a set of other inks.
WHITE_IS_ZERO, BLACK_IS_ZERO, RGB, PALETTE, CMYK, YCBCR, OTHER_INKS = 0, 1, 2, 3, 5, 6, -1
PHOTOMETRICS: Final = {
    WHITE_IS_ZERO: "white-is-zero grey",
    BLACK_IS_ZERO: "grey",
    RGB: "RGB",
    PALETTE: "palette",
    CMYK: "CMYK",
    YCBCR: "YCbCr",
    4: "transparency mask",
    8: "CIE L*a*b*",
    9: "ICC L*a*b*",
    10: "ITU L*a*b*",
    32803: "camera raw",
    34892: "camera raw",
    32844: "LogL",
    32845: "LogLuv",
    OTHER_INKS: "inks other than CMYK",
}
COLORS: Final = {WHITE_IS_ZERO: 1, BLACK_IS_ZERO: 1, RGB: 3, PALETTE: 1, CMYK: 4, YCBCR: 3}
# Most channels beyond the colours that Pillow reads, by photometric and bits a sample.
MAX_EXTRA: Final = {
    **{(grey, bits): 0 for grey in (WHITE_IS_ZERO, BLACK_IS_ZERO) for bits in (1, 2, 4, 8, 16)},
    **{(PALETTE, bits): 0 for bits in (1, 2, 4, 8)},
    (BLACK_IS_ZERO, 8): 1,
    (RGB, 8): 3,
    (RGB, 16): 1,
    (CMYK, 8): 2,
    (CMYK, 16): 0,
    (YCBCR, 8): 0,
}
UNSIGNED, UNTYPED = 1, 4
FORMATS: Final = {2: "signed", 3: "floating-point", 5: "complex", 6: "complex"}
# Compressions that libtiff decodes, as Pillow's wheels have it.
CCITT: Final = (2, 3, 4)
COMPRESSIONS: Final = frozenset({1, *CCITT, 5, 7, 8, 32773, 32946, 34925, 50000})
COMPRESSION_NAMES: Final = {
    6: "old-style JPEG",
    33003: "JPEG 2000",
    33004: "JPEG 2000",
    33005: "JPEG 2000",
    34712: "JPEG 2000",
    34661: "JBIG",
    34887: "LERC",
    34892: "lossy DNG",
    50001: "WebP",
    50002: "JPEG XL",
}
# Kinds of extra channels: no alpha, alpha that is multiplied into the colours, and plain alpha.
NO_ALPHA, PREMULTIPLIED, ALPHA = 0, 1, 2
# Corel Draw's number of alpha.
CORELS_ALPHA: Final = 999
MAX_CHANNELS: Final = 64


@dataclass(frozen=True, slots=True)
class Layout:
    """How the pixels of a TIFF are stored.

    Attributes:
        photometric: The meaning of the colour channels.
        bits: Bits of a sample of each channel.
        sample_formats: Kinds of numbers; none told means unsigned.
        extra: The kind of each channel beyond the colours.
        is_planar: Whether each channel is stored on its own.
        compression: Number of the compression.
    """

    photometric: int
    bits: tuple[int, ...]
    sample_formats: frozenset[int]
    extra: tuple[int, ...]
    is_planar: bool
    compression: int

    def __str__(self) -> str:
        bits = " and ".join(map(str, sorted(set(self.bits))))
        numbers = " and ".join(FORMATS[i] for i in sorted(self.sample_formats) if i in FORMATS)
        meaning = PHOTOMETRICS.get(self.photometric, f"photometric {self.photometric}")
        channels = f"of {len(self.bits)} {'planar ' * self.is_planar}channels"
        words = [f"{bits}-bit", numbers, meaning, channels * (len(self.bits) > 1)]
        if self.compression not in COMPRESSIONS:
            name = COMPRESSION_NAMES.get(self.compression, f"compression {self.compression}")
            words.append(f"in {name}")
        return " ".join(word for word in words if word)

    @property
    def is_read(self) -> bool:
        """Whether decoding gives the right pixels."""
        most = MAX_EXTRA.get((self.photometric, self.bits[0]))
        is_unsigned = self.sample_formats <= {UNSIGNED, UNTYPED}
        if most is None or len(set(self.bits)) > 1 or not is_unsigned:
            return False
        if self.is_planar:
            # Channels are decoded one by one, and those beyond the first alpha are not needed.
            has_room = self.photometric != YCBCR and self.bits[0] >= 8
        else:
            has_room = len(self.extra) <= most
        has_plain_rest = not any(self.extra[1:])
        is_alpha_known = self.photometric in (BLACK_IS_ZERO, RGB) or not any(self.extra)
        return has_room and has_plain_rest and is_alpha_known and self.compression in COMPRESSIONS


def layout_of(directory: Directory) -> Layout:
    """Read the layout from a TIFF's tags, with libtiff's defaults for missing ones.

    Raises:
        ValueError: The tags contradict each other.
    """
    bits = tuple(map(int, directory.numbers(BITS)[:MAX_CHANNELS])) or (1,)
    samples = min(directory.number(SAMPLES, len(bits)), MAX_CHANNELS)
    if len(bits) < samples > 1 < len(bits) or samples < 1:
        raise ValueError("bits and channels contradict each other")
    compression = directory.number(COMPRESSION, 1)
    guess = RGB if samples > 2 else WHITE_IS_ZERO if compression in CCITT else BLACK_IS_ZERO
    photometric = directory.number(PHOTOMETRIC, guess)
    if photometric == CMYK and directory.number(INK_SET, 1) != 1:
        photometric = OTHER_INKS
    if samples < COLORS.get(photometric, 0):
        raise ValueError("channels are missing")
    return Layout(
        photometric,
        bits[:samples] if len(bits) >= samples else bits * samples,
        frozenset(map(int, directory.numbers(SAMPLE_FORMAT)[:MAX_CHANNELS])),
        _extra_channels(directory, photometric, samples),
        samples > 1 and directory.number(PLANAR, 1) == 2,
        compression,
    )


def _extra_channels(directory: Directory, photometric: int, samples: int) -> tuple[int, ...]:
    count = samples - COLORS.get(photometric, samples)
    told = tuple(map(int, directory.numbers(EXTRA_SAMPLES)[:count]))
    if photometric == RGB and count == 1 and told in ((), (CORELS_ALPHA,)):
        return (ALPHA,)
    return told + (NO_ALPHA,) * (count - len(told))
