"""A share of the images is held out: stratified, the same for a seed, and without leaks."""

from collections import Counter
from pathlib import Path

import numpy as np
import pytest

from model_export.data.annotations import NamedBoxes
from model_export.data.held_out import share_of
from model_export.data.reading import read_source
from model_export.data.sources import DataSource, Share
from model_export.errors import ModelExportError
from support import data_forms as forms

BOX = (0.0, 0.0, 9.0, 9.0)


def image(name: str, *names: str) -> NamedBoxes:
    return NamedBoxes(Path(name), 1, None, [BOX] * len(names), names)


def held(images: list[NamedBoxes], fraction: float = 0.2, seed: int = 0) -> list[NamedBoxes]:
    return share_of(images, Share(fraction, seed, held_out=True))


def mixed(count: int = 400) -> list[NamedBoxes]:
    """Images of common and rare classes, and some without objects."""
    rng = np.random.default_rng(0)
    names = [
        [
            name
            for name, share in (("often", 3.0), ("some", 0.4), ("rare", 0.05))
            for _ in range(rng.poisson(share))
        ]
        if i % 10
        else []
        for i in range(count)
    ]
    return [image(f"{i}.jpg", *each) for i, each in enumerate(names)]


def counts(images: list[NamedBoxes]) -> Counter[str]:
    return Counter(name for each in images for name in each.names or ("background",))


@pytest.mark.parametrize("fraction", [0.1, 0.2, 0.5])
def test_each_class_has_its_share(fraction: float) -> None:
    images = mixed()
    assert abs(len(held(images, fraction)) - fraction * len(images)) <= 0.04 * len(images)
    taken, everything = counts(held(images, fraction)), counts(images)
    assert everything["rare"] > 10
    for name, number in everything.items():
        assert abs(taken[name] - fraction * number) <= max(1, 0.02 * number), name


def test_both_parts_are_all_images_once() -> None:
    images = mixed()
    others = share_of(images, Share(0.2, 0, held_out=False))
    parts = [each.path for each in (*held(images), *others)]
    assert sorted(parts) == sorted(each.path for each in images)
    assert [each.path for each in others] == [each.path for each in images if each in others]


def test_the_seed_alone_decides() -> None:
    images = mixed()
    shuffled = [images[i] for i in np.random.default_rng(1).permutation(len(images))]
    first = {each.path for each in held(images)}
    assert {each.path for each in held(shuffled)} == first
    assert {each.path for each in held(images, seed=1)} != first


def test_the_single_box_of_a_class_is_for_training() -> None:
    images = [*mixed(), image("one.jpg", "single", "often")]
    for seed in range(5):
        assert counts(held(images, seed=seed))["single"] == 0


def test_copies_of_a_picture_stay_together(tmp_path: Path) -> None:
    augmented = [image(f"{i}_jpg.rf.{copy}a0.jpg", "cat") for i in range(20) for copy in range(3)]
    taken = Counter(each.path.name.split("_")[0] for each in held(augmented))
    assert set(taken.values()) == {3}

    for i in range(12):
        (tmp_path / f"{i}.jpg").write_bytes(b"%03d" % (i // 2))
    same = [image(str(tmp_path / f"{i}.jpg"), "cat") for i in range(12)]
    numbers = {int(each.path.stem) for each in held(same, 0.34)}
    assert numbers
    assert all(number ^ 1 in numbers for number in numbers)


def test_too_few_images_are_refused() -> None:
    with pytest.raises(ModelExportError, match="1 images are too few"):
        held([image("a.jpg", "cat")])
    assert len(held([image("a.jpg", "cat"), image("b.jpg", "cat")], 0.01)) == 1


def test_every_form_holds_out_the_same_images(tmp_path: Path) -> None:
    parts = set()
    for name, make in forms.FORMS.items():
        share = Share(0.5, 3, held_out=True)
        data = read_source(DataSource(make(tmp_path / name), share=share))
        parts.add(tuple(each.path.name for each in data.images))
        assert "of 4 images held out for validation: 0.5 of the boxes" in data.notes[-1]
        assert data.notes[-1].endswith("seed 3")
    assert len(parts) == 1
