"""Text files of annotations, whichever encoding a tool wrote them in."""

import codecs
import re
from pathlib import Path
from typing import Final
from xml.etree import ElementTree as ET

from model_export.errors import ModelExportError

BYTE_ORDER_MARKS: Final = (
    (codecs.BOM_UTF8, "utf-8-sig"),
    (codecs.BOM_UTF16_LE, "utf-16"),
    (codecs.BOM_UTF16_BE, "utf-16"),
)
DECLARATION: Final = re.compile(rb"""<\?xml[^>]*?encoding\s*=\s*["']([\w.:-]+)["'][^>]*?\?>""")


def read_bytes(path: Path) -> bytes:
    """The content of a file.

    Raises:
        ModelExportError: It cannot be read; the message names it.
    """
    try:
        return path.read_bytes()
    except OSError as error:
        raise ModelExportError(f"cannot read {path}: {error.strerror}") from error


def read_text(path: Path) -> str:
    """The text of a file in UTF-8, or in UTF-16 with a byte order mark.

    Raises:
        ModelExportError: It cannot be read, or has another encoding.
    """
    content = read_bytes(path)
    encoding = next((name for mark, name in BYTE_ORDER_MARKS if content.startswith(mark)), "utf-8")
    try:
        return content.decode(encoding)
    except UnicodeDecodeError as error:
        line = content[: error.start].count(b"\n") + 1
        meant = encoding.upper().removesuffix("-SIG")
        raise ModelExportError(
            f"{path}, line {line}: the text is not {meant}; save the file as UTF-8"
        ) from error


def read_lines(path: Path) -> list[str]:
    """The lines of a text file without blanks at their ends; lines of blanks only are left out.

    Raises:
        ModelExportError: As in `read_text`.
    """
    return [line.strip() for line in read_text(path).splitlines() if line.strip()]


def read_xml(path: Path) -> ET.Element:
    """The root element of an XML file, in any encoding that Python knows.

    Raises:
        ModelExportError: The file cannot be read, is no XML, or has a DTD.
    """
    content = read_bytes(path)
    if b"<!DOCTYPE" in content or b"<!ENTITY" in content:
        raise ModelExportError(f"{path} has a DTD; remove the DOCTYPE and its entities")
    try:
        # Without a DTD no entity can expand without bound, and expat fetches nothing.
        return ET.fromstring(_decoded(content))  # noqa: S314
    except UnicodeDecodeError as error:
        raise ModelExportError(
            f"{path}: the text is not {error.encoding.upper()}, as its first line says; save it "
            "as UTF-8, or correct that line"
        ) from error
    except (ET.ParseError, ValueError, LookupError) as error:
        raise ModelExportError(
            f"{path} is no VOC annotation: {error}; export it again, or save it as UTF-8"
        ) from error


def _decoded(content: bytes) -> str | bytes:
    """Text where the encoding is declared, because expat reads few encodings but Unicode's."""
    declared = DECLARATION.match(content.lstrip())
    if declared is None:
        return content
    encoding = declared[1].decode()
    if encoding.lower().startswith(("utf-16", "utf16")):
        # The declaration could be read as single bytes, so it is wrong.
        encoding = "utf-8"
    return content.lstrip()[declared.end() :].decode(encoding)
