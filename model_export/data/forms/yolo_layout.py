"""The places of a YOLO data set's images, and the names of its classes."""

from collections.abc import Mapping, Sequence
from dataclasses import dataclass
from pathlib import Path
from typing import Any, Final

import yaml

from model_export.data.class_names import read_names, refuse_twins
from model_export.data.forms.found_images import ImageFinder, image_files
from model_export.data.forms.splits import (
    SPLIT_NAMES,
    MissingFolderError,
    existing_path,
    folder_of_split,
    names_of,
    no_split,
    split_folder,
    split_folders,
    subfolder,
)
from model_export.data.texts import read_lines, read_text
from model_export.errors import ModelExportError

YAML_SUFFIXES: Final = (".yaml", ".yml")
# A label file's may be in any case.
LABEL_SUFFIX: Final = ".txt"
USUAL_STEMS: Final = ("data", "dataset")
ALL_SPLIT_NAMES: Final = frozenset(name for names in SPLIT_NAMES for name in names)
# Values of YAML for a split that is not there.
NOTHING: Final = ("", "~", "null", "Null", "NULL", "none", "None")
# One name per line: LabelImg and Label Studio; Darknet and CVAT; Roboflow's form for Darknet.
NAME_FILES: Final = (
    "classes.txt",
    "labels/classes.txt",
    "labels.txt",
    "obj.names",
    "_darknet.labels",
    "train/_darknet.labels",
    "train/labels/classes.txt",
)


class _PlainLoader(yaml.SafeLoader):
    """Reads every scalar as text, for `yes`, `no` and `1` are names too."""

    yaml_implicit_resolvers: dict[str, Any] = {}  # noqa: RUF012

    def construct_mapping(self, node: yaml.MappingNode, deep: bool = False) -> dict[Any, Any]:
        """A map, of which no key is there twice.

        Raises:
            yaml.MarkedYAMLError: One is.
        """
        keys = set[str]()
        for key, _ in node.value:
            if key.value in keys and isinstance(key, yaml.ScalarNode):
                raise yaml.MarkedYAMLError(
                    problem=f"the key {key.value} is there twice", problem_mark=key.start_mark
                )
            keys.add(str(key.value))
        return super().construct_mapping(node, deep)


@dataclass(frozen=True, slots=True)
class YoloLayout:
    """A YOLO data set, of which no label has been read.

    Attributes:
        source: The file or folder that describes it.
        roots: Where written paths may start from, the likeliest first.
        class_names: Class number to name.
        splits: Split to the written paths of folders or lists of images; empty if they are found by
            the usual names of folders.
        keypoints: How many numbers of keypoints follow each box, as `kpt_shape` says.
    """

    source: Path
    roots: tuple[Path, ...]
    class_names: tuple[str, ...]
    splits: Mapping[str, Sequence[str]]
    keypoints: int = 0

    def images(self, split: str) -> list[Path]:
        """The image files of a split, sorted by path; those of a list in its order.

        Raises:
            ModelExportError: There is no such split, its folder is missing or it has no images.
        """
        if not self.splits:
            return self._found(_usual_folder(self.roots[0], split))
        name = next((name for name in names_of(split) if name in self.splits), None)
        if name is None:
            raise no_split(self.source, split, self.splits)
        return [path for written in self.splits[name] for path in self._written(name, written)]

    def _written(self, split: str, written: str) -> list[Path]:
        path = self._resolved(split, written)
        if path is None:
            raise MissingFolderError(
                f"{self.source}: `{split}` is {written}, and there is no "
                f"{self.roots[0] / written}; correct it, or `path`"
            )
        if path.is_dir():
            return self._found(path)
        if path.suffix.lower() != ".txt":
            raise ModelExportError(f"{self.source}: {written} is neither a folder nor a .txt list")
        finder = ImageFinder([path.parent, *self.roots])
        found = [finder.find(line) for line in read_lines(path)]
        finder.refuse_strays()
        return found

    def _resolved(self, split: str, written: str) -> Path | None:
        """A folder or list, though its path begins with folders of another machine.

        Raises:
            ModelExportError: Roboflow's `../train/images` is there, and so is train/images beside
                the description, which Roboflow means.
        """
        parts = Path(written.replace("\\", "/")).parts
        named = [at for at, part in enumerate(parts) if part.lower() in names_of(split)]
        own = named[-1] if named else None
        for start in range(len(parts) or 1):
            for root in self.roots:
                if path := existing_path(root, parts[start:]):
                    self._refuse_two(written, parts, path, root)
                    return path
            if start == own:
                # Without the folder of its split, the path would be another's.
                return None
        return None

    def _refuse_two(self, written: str, parts: Sequence[str], found: Path, root: Path) -> None:
        inner = (
            existing_path(root, parts[1:])
            if parts[:1] == ("..",) and parts[1:2] != ("..",)
            else None
        )
        if inner and inner.resolve() != found.resolve():
            raise ModelExportError(
                f"{self.source}: {written} is {found.resolve()}, and {inner} is there, too; write "
                "the path of the one that is meant"
            )

    def _found(self, folder: Path) -> list[Path]:
        if files := image_files(folder, deep=True):
            return files
        raise ModelExportError(f"{folder} has no images")


def read_layout(path: Path, class_names: Sequence[str] = ()) -> YoloLayout:
    """Read the description of a YOLO data set.

    Args:
        path: A data.yaml, a Darknet .data file, or a folder with one of them or with images and
            labels in the usual folders.
        class_names: Class number to name, if the data set does not say.

    Raises:
        ModelExportError: The description cannot be read, or says nothing of the names.
    """
    described = path if path.is_file() else description(path)
    if described is None:
        return YoloLayout(path, (path,), _listed_names(path, class_names), {})
    content = _yaml(described) if described.suffix in YAML_SUFFIXES else _darknet(described)
    roots, keypoints = _roots(described, content.get("path")), _keypoints(described, content)
    splits = {
        name.lower(): _paths(described, name, content[name]) for name in content if _is_split(name)
    }
    splits = {name: paths for name, paths in splits.items() if paths}
    if not splits and not _has_usual_folders(roots[0]):
        raise ModelExportError(f"{described} names no images; write the folder as `train: ...`")
    names = _names(described, content) or tuple(class_names)
    if not names:
        raise ModelExportError(f"{described} has no `names`; add them, or give --names")
    refuse_twins(described, names)
    return YoloLayout(described, roots, names, splits, keypoints)


def description(folder: Path) -> Path | None:
    """The file in a folder that describes a YOLO data set, if there is one."""
    files = sorted(
        path
        for path in folder.iterdir()
        if path.suffix in (*YAML_SUFFIXES, ".data") and not path.name.startswith(".")
    )
    files.sort(key=lambda path: path.stem not in USUAL_STEMS)
    return next((path for path in files if _has_names(path)), None)


def _has_names(path: Path) -> bool:
    """Whether a file names classes; files of other programs need not be readable."""
    try:
        if path.suffix == ".data":
            return any(line.partition("=")[0].strip() == "names" for line in read_lines(path))
        return "names" in _yaml(path)
    except ModelExportError:
        if path.stem in USUAL_STEMS:
            raise
        return False


def names_file(folder: Path) -> Path | None:
    """The file of one class name per line in a folder, if there is one."""
    return next((folder / name for name in NAME_FILES if (folder / name).is_file()), None)


def _listed_names(folder: Path, class_names: Sequence[str]) -> tuple[str, ...]:
    for place in (folder, folder.parent):
        # The folder of one split has the names of all beside it.
        if path := names_file(place):
            return read_names(path)
        if not class_names and (described := description(place)):
            return read_layout(described).class_names
    if class_names:
        return tuple(class_names)
    raise ModelExportError(
        f"{folder} has YOLO labels, and nothing that names the classes; write classes.txt with one "
        "name per line, or give --names"
    )


def _usual_folder(root: Path, split: str) -> Path:
    """The folder of a split's images: images/train, train/images, train or, if alone, images."""
    images = subfolder(root, "images")
    if images and not split_folder(root, split):
        return folder_of_split(images, split)
    return folder_of_split(root, split)


def _has_usual_folders(root: Path) -> bool:
    return bool(subfolder(root, "images") or split_folders(root))


def _yaml(path: Path) -> Mapping[str, Any]:
    try:
        # Derived from the safe loader.
        content = yaml.load(read_text(path), _PlainLoader)  # noqa: S506
    except yaml.MarkedYAMLError as error:
        line = error.problem_mark.line + 1 if error.problem_mark else 1
        raise ModelExportError(f"{path}, line {line}: no valid YAML: {error.problem}") from error
    except yaml.YAMLError as error:
        raise ModelExportError(f"{path} is no valid YAML: {error}") from error
    return content if isinstance(content, dict) else {}


def _darknet(path: Path) -> Mapping[str, Any]:
    """A Darknet file of lines such as `train = train.txt`, where names are in a file."""
    pairs = (line.partition("=") for line in read_lines(path) if "=" in line)
    content: dict[str, Any] = {key.strip(): value.strip() for key, _, value in pairs}
    if names := content.get("names"):
        places = [path.parent / names, path.parent / Path(names.replace("\\", "/")).name]
        file = next((each for each in places if each.is_file()), places[0])
        content["names"] = list(read_names(file))
        content["nc"] = content.get("classes")
    return content


def _is_split(name: str) -> bool:
    return name.lower() in ALL_SPLIT_NAMES


def _paths(source: Path, split: str, value: object) -> list[str]:
    paths = value if isinstance(value, list) else [value]
    if not all(isinstance(path, str) for path in paths):
        raise ModelExportError(f"{source}: `{split}` is neither a path nor a list of paths")
    return [str(path) for path in paths if path not in NOTHING]


def _names(source: Path, content: Mapping[str, Any]) -> tuple[str, ...]:
    """Class number to name, from a list or a map."""
    names = content.get("names") or []
    if isinstance(names, dict):
        wanted = [str(number) for number in range(len(names))]
        if missing := [number for number in wanted if number not in names]:
            raise ModelExportError(
                f"{source}: `names` has no class {missing[0]}; number the {len(names)} classes "
                f"from 0 to {len(names) - 1}"
            )
        names = [names[number] for number in wanted]
    if not isinstance(names, list) or not all(isinstance(name, str) for name in names):
        raise ModelExportError(f"{source}: `names` is neither a list of names nor a map to names")
    count = content.get("nc") or str(len(names))
    if names and count != str(len(names)):
        raise ModelExportError(
            f"{source}: {len(names)} classes have names, and there should be {count}; correct one "
            "of them"
        )
    return tuple(names)


def _keypoints(source: Path, content: Mapping[str, Any]) -> int:
    """How many numbers follow a box: keypoints, times two or three numbers for each."""
    shape = content.get("kpt_shape") or ["0", "2"]
    try:
        count, numbers = (int(each) for each in shape)
    except (TypeError, ValueError):
        raise ModelExportError(
            f"{source}: `kpt_shape` is no list of two numbers, such as [17, 3]"
        ) from None
    return count * numbers


def _roots(source: Path, written: object) -> tuple[Path, ...]:
    """The folder that `path` names, if it is on this machine, and that of the description."""
    beside = source.parent
    named = beside / str(written or "").replace("\\", "/")
    return (named, beside) if named.is_dir() and named != beside else (beside,)
