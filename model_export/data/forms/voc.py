"""The reader of Pascal VOC: an XML file for each image, in whichever folders."""

import re
from collections import Counter, defaultdict
from collections.abc import Sequence
from dataclasses import dataclass
from pathlib import Path
from xml.etree import ElementTree as ET

from model_export.data.annotations import NamedBoxes, Reading, first_few, known_size, names_in
from model_export.data.forms.found_images import IMAGE_SUFFIXES, ImageFinder, image_files
from model_export.data.forms.splits import folder_of_split, names_of, no_split
from model_export.data.texts import read_lines, read_xml
from model_export.errors import ModelExportError


@dataclass(frozen=True, slots=True)
class _Pair:
    """An image, and its annotation if there is one."""

    image: Path
    xml: Path | None


def read_voc(root: Path, split: str = "train") -> Reading:
    """Read one split of Pascal VOC annotations.

    The folder may be VOC's own (ImageSets, Annotations and JPEGImages), or one with images and XML
    files side by side or in two folders, perhaps in train/, valid/ and test/. Images without an XML
    file are background. The classes are those of the split, sorted. Objects marked difficult are
    targets. Corners are taken as written: VOC 2007 counts pixels from 1, labelling tools do not,
    and the file does not say which.

    Args:
        root: The folder.
        split: A list in ImageSets/Main, without its suffix, or a folder.

    Raises:
        ModelExportError: A file is missing or damaged, or there is no such split.
    """
    notes: list[str] = []
    if (root / "ImageSets").is_dir():
        pairs = _listed_pairs(root, split, notes)
    else:
        pairs = _paired_files(folder_of_split(root, split))
    background = [pair.image.name for pair in pairs if pair.xml is None]
    if pairs and len(background) == len(pairs):
        raise ModelExportError(
            f"{root}: none of {len(pairs)} images has an XML file; {pairs[0].image.name} should "
            f"have {pairs[0].image.stem}.xml beside it, or in the folder Annotations"
        )
    if background:
        notes.append(
            f"{len(background)} images without XML are background: {first_few(background)}"
        )
    images = [_image(pair, number) for number, pair in enumerate(pairs, start=1)]
    return Reading(root, images, names_in(images), numbered=False, notes=tuple(notes))


def _listed_pairs(root: Path, split: str, notes: list[str]) -> list[_Pair]:
    """The pairs of a split that a list in ImageSets names."""
    finder = ImageFinder([root / "JPEGImages", root])
    stems = Counter(_without_suffix(name) for name in _listed_names(root, split, notes))
    if twice := [stem for stem, count in stems.items() if count > 1]:
        notes.append(f"listed more than once, and counted once: {first_few(twice)}")
    return [_pair(root, stem, finder) for stem in stems]


def _pair(root: Path, stem: str, finder: ImageFinder) -> _Pair:
    xml = root / "Annotations" / f"{stem}.xml"
    return _Pair(finder.find(stem), xml if xml.is_file() else None)


def _listed_names(root: Path, split: str, notes: list[str]) -> list[str]:
    """The names of a split's images as its list has them."""
    lists = root / "ImageSets" / "Main"
    lists = lists if lists.is_dir() else lists.parent
    files = {path.stem: path for path in sorted(lists.glob("*.txt"))}
    path = next((files[name] for name in names_of(split) if name in files), None)
    if path is None and "train" in names_of(split) and len(files) == 1:
        (path,) = files.values()
        notes.append(f"{lists} has no list {split}; its only one is {path.name}")
    if path is None:
        raise no_split(root, split, files)
    lines = read_lines(path)
    # A list for one class has a second column of -1, 0 or 1. A file may also be named `photo 1`,
    # so the column counts only if every line has it.
    marks = [re.fullmatch(r"(.*\S)\s+(?:-1|0|1)", line) for line in lines]
    return [mark[1] for mark in marks if mark] if all(marks) else lines


def _without_suffix(name: str) -> str:
    """The stem that a list means: some tools write suffixes, or paths."""
    path = Path(name.replace("\\", "/"))
    is_file = path.suffix.lower() in IMAGE_SUFFIXES | {".xml"}
    return path.stem if is_file else path.name


def _paired_files(folder: Path) -> list[_Pair]:
    """The pairs of a folder without lists: each XML file and the image of the same stem."""
    images = image_files(folder, deep=True)
    of_stem = defaultdict(list)
    for path in images:
        of_stem[path.stem].append(path)
    finder = ImageFinder(sorted({folder, *(path.parent for path in images)}))
    xml_of: dict[Path, Path | None] = dict.fromkeys(images)
    for xml in xml_files(folder):
        image = _image_of(xml, of_stem[xml.stem], finder)
        if other := xml_of.get(image):
            raise ModelExportError(f"{other} and {xml} both belong to {image}; remove one of them")
        xml_of[image] = xml
    return [_Pair(image, xml) for image, xml in sorted(xml_of.items())]


def xml_files(folder: Path) -> list[Path]:
    """The XML files in a folder and its folders, sorted; hidden files are left out."""
    return sorted(path for path in folder.rglob("*.xml") if not path.name.startswith("."))


def _image_of(xml: Path, same_stem: Sequence[Path], finder: ImageFinder) -> Path:
    """The image beside an XML file, else one elsewhere of the same stem, else the one it names."""
    beside = [path for path in same_stem if path.parent == xml.parent]
    found = beside or same_stem
    if len(found) == 1:
        return found[0]
    written = (_annotation(xml).findtext("filename") or "").strip()
    if not found:
        return finder.find(written or xml.stem)
    named = [path for path in found if path.name == written]
    if len(named) != 1:
        paths = " and ".join(map(str, found))
        raise ModelExportError(
            f"{xml} may belong to {paths}; rename one image and its XML file, or remove one image"
        )
    return named[0]


def _annotation(xml: Path) -> ET.Element:
    """The root of a VOC annotation, without XML's namespaces."""
    root = read_xml(xml)
    for element in root.iter():
        element.tag = element.tag.rpartition("}")[2]
    if root.tag != "annotation":
        tool = "CVAT's own form" if root.tag == "annotations" else "another form"
        raise ModelExportError(
            f"{xml} is no VOC annotation but {tool}: its first element is {root.tag}; export the "
            "data as Pascal VOC or COCO, or move the file away"
        )
    return root


def _image(pair: _Pair, number: int) -> NamedBoxes:
    if pair.xml is None:
        return NamedBoxes(pair.image, number, None, (), ())
    root = _annotation(pair.xml)
    try:
        size = known_size(root.findtext("size/height"), root.findtext("size/width"))
        objects = list(enumerate(root.findall("object"), start=1))
        names = [_text(entry, "name", at) for at, entry in objects]
        corners = [_corners(entry, at) for at, entry in objects]
    except (ValueError, OverflowError) as error:
        raise ModelExportError(f"{pair.xml} is no VOC annotation: {error}") from error
    return NamedBoxes(pair.image, number, size, corners, names)


def _corners(entry: ET.Element, at: int) -> tuple[float, float, float, float]:
    x1, y1, x2, y2 = (
        _number(entry, f"bndbox/{name}", at) for name in ("xmin", "ymin", "xmax", "ymax")
    )
    return x1, y1, x2, y2


def _number(entry: ET.Element, path: str, at: int) -> float:
    text = _text(entry, path, at)
    try:
        return float(text)
    except ValueError:
        raise ValueError(f"object {at} has the {path} {text!r}, which is no number") from None


def _text(element: ET.Element, path: str, at: int) -> str:
    text = element.findtext(path)
    if not text or not text.strip():
        raise ValueError(f"object {at} has no {path}")
    return text.strip()
