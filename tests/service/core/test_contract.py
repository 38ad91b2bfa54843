import dataclasses
import json

import pytest

from service.core.contract import (
    METADATA_KEY,
    ContractError,
    InputSpec,
    ModelContract,
    Provenance,
    Recommended,
)

CONTRACT = ModelContract(
    name="yolox-nano",
    version="1.2",
    input=InputSpec(
        "images", 416, 320, batch=1, layout="NCHW", dtype="float32", value_range=(0.0, 1.0)
    ),
    class_names=("cat", "naïve dog"),
    strides=(8, 16, 32),
    box_coding="anchor_point",
    score_activation="probabilities",
    recommended=Recommended(confidence=0.3, nms="hard", class_agnostic=False),
    provenance=Provenance(licence="Apache-2.0"),
)


def edited(**changes: object) -> dict[str, str]:
    fields = json.loads(CONTRACT.to_metadata()[METADATA_KEY]) | changes
    return {METADATA_KEY: json.dumps(fields)}


def test_contract_survives_the_way_through_metadata() -> None:
    assert ModelContract.from_metadata(CONTRACT.to_metadata()) == CONTRACT


def test_other_metadata_does_not_matter() -> None:
    metadata = {"author": "someone", **CONTRACT.to_metadata()}
    assert ModelContract.from_metadata(metadata) == CONTRACT


@pytest.mark.parametrize(
    ("metadata", "message"),
    [
        ({}, "carries no model contract"),
        ({METADATA_KEY: "{"}, "not JSON"),
        ({METADATA_KEY: "[]"}, "version None"),
        (edited(contract_version=2), "version 2"),
        (edited(colour="blue"), "unknown fields: colour"),
        (edited(name=7), r"contract\.name is 7, and must be str"),
        (edited(box_coding="corners"), "must be one of yolox, anchor_point"),
        (edited(strides="8"), "strides is '8', and must be a list"),
        (edited(class_names=["a", 1]), r"class_names\[1\] is 1"),
        (edited(input={"name": "x"}), "contract.input lacks height, width"),
        (edited(recommended=3), "recommended is 3, and must be an object"),
    ],
)
def test_alien_contract_is_refused_by_name_of_what_is_wrong(
    metadata: dict[str, str], message: str
) -> None:
    with pytest.raises(ContractError, match=message):
        ModelContract.from_metadata(metadata)


@pytest.mark.parametrize(
    ("changes", "message"),
    [
        ({"name": ""}, "name is empty"),
        ({"class_names": ()}, "class_names is empty"),
        ({"class_names": ("a", "a")}, "duplicates"),
        ({"strides": ()}, "strides must be positive"),
        ({"strides": (16, 8)}, "ascend"),
        ({"input": InputSpec("x", 400, 416)}, "not a multiple"),
        ({"input": InputSpec("x", 0, 416)}, "not a multiple"),
        ({"input": InputSpec("x", 416, 416, batch=0)}, "batch"),
        ({"input": InputSpec("x", 416, 416, value_range=(0.0, 1.0))}, "uint8 input implies"),
        (
            {"input": InputSpec("x", 416, 416, dtype="float32", value_range=(1.0, 0.0))},
            "value_range must ascend",
        ),
        ({"input": InputSpec("x", 416, 416, pad_value=256)}, "pad_value"),
        ({"input": InputSpec("x", 416, 416, least_side=64)}, "least_side 64"),
        ({"input": InputSpec("x", 416, 320, True, least_side=352)}, "least_side 352"),
        ({"input": InputSpec("x", 320, 416, True, least_side=352)}, "least_side 352"),
        ({"input": InputSpec("x", 416, 416, True, least_side=100)}, "least_side 100"),
        ({"input": InputSpec("x", 416, 416, True, least_side=0)}, "least_side 0"),
        ({"recommended": Recommended(confidence=1.5)}, "confidence"),
        ({"recommended": Recommended(iou=-1.0)}, "iou"),
        ({"recommended": Recommended(sigma=0.0)}, "sigma"),
    ],
)
def test_contradictory_contract_cannot_exist(changes: dict[str, object], message: str) -> None:
    with pytest.raises(ContractError, match=message):
        dataclasses.replace(CONTRACT, **changes)


def test_least_side_is_the_largest_stride_unless_a_model_says_more() -> None:
    spec = InputSpec("x", 416, 320, dynamic_size=True)
    assert dataclasses.replace(CONTRACT, input=spec).least_side == 32
    spec = dataclasses.replace(spec, least_side=320)
    contract = dataclasses.replace(CONTRACT, input=spec)
    assert contract.least_side == 320
    assert ModelContract.from_metadata(contract.to_metadata()) == contract


@pytest.mark.parametrize(("height", "width", "cells"), [(416, 416, 3549), (640, 640, 8400)])
def test_cell_count_is_the_article_s(height: int, width: int, cells: int) -> None:
    assert CONTRACT.num_cells(height, width) == cells
