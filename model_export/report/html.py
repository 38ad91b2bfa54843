"""Pages of HTML with their pictures inside, built as a tree, which escapes every text."""

import base64
import io
from collections.abc import Sequence
from typing import Final
from xml.etree import ElementTree as ET

import numpy as np
from numpy.typing import NDArray
from PIL import Image

STYLE: Final = (
    "body{font:16px system-ui,sans-serif;max-width:72rem;margin:2rem auto;padding:0 1rem}"
    "table{border-collapse:collapse}td,th{padding:.25rem .75rem;text-align:right}"
    "td:first-child,th:first-child{text-align:left}tr:nth-child(even){background:#8881}"
    ".warning{border-left:.3rem solid #d80;padding:.25rem .75rem}img{max-width:100%}"
)


class Page:
    """A page that parts are added to from top to bottom.

    Args:
        title: Its title and first heading.
    """

    def __init__(self, title: str) -> None:
        self._root = ET.Element("html", lang="en")
        head = ET.SubElement(self._root, "head")
        ET.SubElement(head, "meta", charset="utf-8")
        for name, text in (("title", title), ("style", STYLE)):
            ET.SubElement(head, name).text = text
        self._body = ET.SubElement(self._root, "body")
        self.heading(title, level=1)

    def heading(self, text: str, level: int = 2) -> None:
        """Add a heading."""
        ET.SubElement(self._body, f"h{level}").text = text

    def paragraph(self, text: str, *, warns: bool = False) -> None:
        """Add a paragraph, or a warning that stands out."""
        element = ET.SubElement(self._body, "p")
        element.text = text
        if warns:
            element.set("class", "warning")

    def table(self, rows: Sequence[Sequence[str]]) -> None:
        """Add a table; its first row has the titles."""
        table = ET.SubElement(self._body, "table")
        for number, row in enumerate(rows):
            line = ET.SubElement(table, "tr")
            for text in row:
                ET.SubElement(line, "td" if number else "th").text = text

    def picture(self, content: bytes, kind: str, alternative: str) -> None:
        """Add a picture, given its file's content and its kind, such as `png`."""
        source = f"data:image/{kind};base64,{base64.b64encode(content).decode()}"
        ET.SubElement(self._body, "img", src=source, alt=alternative)

    def content(self) -> bytes:
        """The page as a file."""
        html: bytes = ET.tostring(self._root, encoding="utf-8", method="html")
        return b"<!DOCTYPE html>\n" + html


def jpeg(pixels: NDArray[np.uint8]) -> bytes:
    """A JPEG of (h, w, 3) uint8 BGR."""
    buffer = io.BytesIO()
    Image.fromarray(np.ascontiguousarray(pixels[:, :, ::-1])).save(buffer, "JPEG", quality=85)
    return buffer.getvalue()
