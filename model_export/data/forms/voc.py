"""The reader of Pascal VOC: an XML file for each image, in whichever folders."""

import re
from collections import Counter, defaultdict
from collections.abc import Sequence
from dataclasses import dataclass
from functools import cache
from pathlib import Path, PurePosixPath
from xml.etree import ElementTree as ET

from model_export.data.annotations import NamedBoxes, Reading, first_few, known_size, names_in
from model_export.data.forms.found_images import (
    IMAGE_SUFFIXES,
    ImageFinder,
    files_in,
    image_files,
    plain_file_name,
    similar_files,
)
from model_export.data.forms.splits import (
    SPLIT_NAMES,
    folder_of_split,
    is_all_for_training,
    names_of,
    no_split,
    split_folders,
)
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
    elif has_inner_splits(root):
        pairs = _of_split(root, split, _paired_files(root))
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
    files = _ListedFiles(root)
    pairs = [files.pair(name) for name in _listed_names(root, split, files, notes)]
    files.images.refuse_strays()
    counts = Counter(pairs)
    if twice := [pair.image.stem for pair, count in counts.items() if count > 1]:
        notes.append(f"listed more than once, and counted once: {first_few(twice)}")
    return list(counts)


class _ListedFiles:
    """The images and XML files that the names in lists stand for.

    Args:
        root: The data set.
    """

    def __init__(self, root: Path) -> None:
        self.images = ImageFinder([root / "JPEGImages", root])
        self._annotations = root / "Annotations"
        self._listed = cache(similar_files)

    def pair(self, name: str) -> _Pair:
        """The files of a name, with a suffix or without one, and perhaps in folders."""
        plain = PurePosixPath(name.replace("\\", "/"))
        names = [plain]
        if plain.suffix.lower() in IMAGE_SUFFIXES | {".xml"}:
            names.append(plain.with_suffix(""))
        found = [self.images.find(str(each)) for each in names]
        image = next((path for path in found if path.is_file()), found[-1])
        # Beside a name as it is written, that of the image without the folders of another machine.
        names += [PurePosixPath(image.stem)] if image.is_file() else []
        return _Pair(image, next(filter(None, map(self._xml, names)), None))

    def _xml(self, name: PurePosixPath) -> Path | None:
        path = self._annotations / name.parent / f"{name.name}.xml"
        similar = self._listed(path.parent).get(plain_file_name(path.name), [])
        return path if path in similar else next(iter(similar), None)


def _listed_names(root: Path, split: str, files: _ListedFiles, notes: list[str]) -> list[str]:
    """The names of a split's images as its list has them."""
    folder = root / "ImageSets" / "Main"
    folder = folder if folder.is_dir() else folder.parent
    lists = {path.stem.lower(): path for path in files_in(folder, (".txt",))}
    path = next((lists[name.lower()] for name in names_of(split) if name.lower() in lists), None)
    only = next(iter(lists.values())) if len(lists) == 1 else None
    if path is None and only and is_all_for_training(only, folder, split):
        path = only
        notes.append(f"{folder} has no list {split}; its only one is {path.name}")
    if path is None:
        raise no_split(root, split, lists)
    lines = read_lines(path)
    # A list for one class has a second column of -1, 0 or 1. A file may also be named `photo 1`,
    # so the column counts only if every line has it, and none is a file's name with it.
    marks = [re.fullmatch(r"(.*\S)\s+(?:-1|0|1)", line) for line in lines]
    if not all(marks) or any(files.pair(line).xml for line in lines):
        return lines
    return [mark[1] for mark in marks if mark]


def _of_split(root: Path, split: str, pairs: list[_Pair]) -> list[_Pair]:
    """The pairs of a split, where folders such as images/train say which is of which."""
    # An image that is missing may be of any split, and is refused later.
    splits = [_split_of(pair.image, root) for pair in pairs]
    if not {*names_of(split)} & {*splits}:
        raise no_split(root, split, sorted({*filter(None, splits)}))
    wanted = (None, *names_of(split))
    return [pair for pair, name in zip(pairs, splits, strict=True) if name in wanted]


def _split_of(path: Path, root: Path) -> str | None:
    """The usual name of the split that a folder of a data set's file is named after."""
    inner = path.relative_to(root).parts if path.is_relative_to(root) else ()
    folders = [part.lower() for part in inner[:-1]]
    return next((names[0] for names in SPLIT_NAMES if {*names} & {*folders}), None)


def has_inner_splits(root: Path) -> bool:
    """Whether all images of a folder lie in inner folders of splits, such as images/train."""
    images = [] if split_folders(root) else image_files(root, deep=True)
    return bool(images) and all(_split_of(path, root) for path in images)


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
    return files_in(folder, (".xml",), deep=True)


def _image_of(xml: Path, same_stem: Sequence[Path], finder: ImageFinder) -> Path:
    """The image beside an XML file, else one elsewhere of the same stem, else the one it names."""
    beside = [path for path in same_stem if path.parent == xml.parent]
    # Such as images/train for annotations/train.
    alike = [path for path in same_stem if path.parent.name == xml.parent.name]
    found = beside or alike or same_stem
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
        size = _size(root)
        objects = list(enumerate(root.findall("object"), start=1))
        names = [_text(entry, "name", at) for at, entry in objects]
        corners = [_corners(entry, at) for at, entry in objects]
    except (ValueError, OverflowError) as error:
        raise ModelExportError(f"{pair.xml} is no VOC annotation: {error}") from error
    return NamedBoxes(pair.image, number, size, corners, names)


def _size(root: ET.Element) -> tuple[int, int] | None:
    height, width = root.findtext("size/height"), root.findtext("size/width")
    try:
        return known_size(height, width)
    except (ValueError, OverflowError):
        raise ValueError(
            f"its size is {width!r} x {height!r}, which are no numbers; correct it, or remove the "
            "element size"
        ) from None


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
        cure = "; a point is its only mark" if "," in text else ""
        raise ValueError(f"object {at} has the {path} {text!r}, which is no number{cure}") from None


def _text(element: ET.Element, path: str, at: int) -> str:
    text = element.findtext(path)
    if not text or not text.strip():
        raise ValueError(f"object {at} has no {path}")
    return text.strip()
