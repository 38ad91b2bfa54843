"""Export: the file keeps its promise, or there is no file."""

import copy
import math
import subprocess
import sys
from dataclasses import replace
from pathlib import Path
from typing import Any

import numpy as np
import onnx
import onnxruntime
import pytest
import torch
from cyclopts import CycloptsError
from numpy.typing import NDArray
from onnx import numpy_helper
from torch import Tensor, nn

from model_export.adoption.usual_thresholds import USUAL_THRESHOLDS
from model_export.commands import export as export_command
from model_export.errors import ModelExportError
from model_export.exporting import export as export_module
from model_export.exporting.compare import FLOAT32_TOLERANCE, Difference, sample_images
from model_export.exporting.export import export
from model_export.exporting.fold import folded
from model_export.graphs.half_weights import MIN_VALUES
from model_export.graphs.pixel_values import LEGACY
from model_export.model.backbones.csp_darknet import Focus
from model_export.model.blocks import SILU
from model_export.model.head import DecoupledHead
from model_export.model.yolox import YOLOX, build
from service.build import DEFAULT_MODEL
from service.core.contract import InputSpec, ModelContract, Provenance
from support.commands import call
from support.onnx_models import takers_of_input
from support.project import ROOT

SQUARE = InputSpec("images", 64, 64)
CONTRACT = ModelContract("toy", "1", SQUARE, ("red", "green", "blue"))


class ToyBackbone(nn.Module):
    """The smallest model that has every kind of step: Focus, convolutions, upsampling."""

    def __init__(self) -> None:
        super().__init__()
        self.stem = Focus(3, 4, SILU)
        self.steps = nn.ModuleList(SILU.conv(4, 4, 3, stride=2) for _ in range(4))
        self.upsample = nn.Upsample(scale_factor=2)

    def forward(self, images: Tensor) -> tuple[Tensor, Tensor, Tensor]:
        """`(N, 3, H, W)` to three maps of 4 channels."""
        maps = [self.stem(images)]
        for step in self.steps:
            maps.append(step(maps[-1]))
        return maps[2] + self.upsample(maps[3]), maps[3], maps[4]


def _with_trained_norms(model: YOLOX) -> YOLOX:
    """Give the batch norms what training would: statistics of real activations."""
    for module in model.modules():
        if isinstance(module, nn.BatchNorm2d):
            nn.init.uniform_(module.weight, 0.5, 1.5)
            nn.init.uniform_(module.bias, -0.5, 0.5)
            module.momentum = 1.0
    with torch.no_grad():
        images = torch.from_numpy(sample_images(4, 128, 128)).permute(0, 3, 1, 2).float()
        model.train()(images)
    return model.eval()


def _toy() -> YOLOX:
    """A small model for three classes, as lively as a trained one."""
    torch.manual_seed(0)
    head = DecoupledHead(3, (4, 4, 4), (4, 4, 4))
    for prediction in (*head.cls_preds, *head.reg_preds, *head.obj_preds):
        nn.init.normal_(prediction.weight)
    return _with_trained_norms(YOLOX(ToyBackbone(), head))


@pytest.fixture
def toy() -> YOLOX:
    """A model of this test's own."""
    return _toy()


@pytest.fixture(scope="module")
def dynamic_export(tmp_path_factory: pytest.TempPathFactory) -> tuple[Path, list[Difference]]:
    """A file of dynamic size, and what was compared for it."""
    path = tmp_path_factory.mktemp("dynamic") / "model.onnx"
    contract = replace(CONTRACT, input=replace(SQUARE, dynamic_size=True))
    return path, export(_toy(), contract, path)


@pytest.fixture(scope="module")
def fixed_export(tmp_path_factory: pytest.TempPathFactory) -> tuple[Path, list[Difference]]:
    """The same model as a file of a fixed size."""
    path = tmp_path_factory.mktemp("fixed") / "model.onnx"
    return path, export(_toy(), CONTRACT, path)


def _run(path: Path, images: NDArray[np.uint8]) -> NDArray[np.float32]:
    """The file's answer to (N, H, W, 3) uint8 images, given as its contract says."""
    session = onnxruntime.InferenceSession(path, providers=["CPUExecutionProvider"])
    spec = _contract_of(path).input
    tensor = images.astype(spec.dtype)
    if spec.layout == "NCHW":
        tensor = np.ascontiguousarray(tensor.transpose(0, 3, 1, 2))
    (output,) = session.run(["output"], {"images": tensor})
    return np.asarray(output)


def _run_torch(model: nn.Module, images: NDArray[np.uint8]) -> NDArray[np.float32]:
    with torch.no_grad():
        rows: Tensor = model(torch.from_numpy(images).permute(0, 3, 1, 2).float())
    return rows.numpy()


def _contract_of(path: Path) -> ModelContract:
    return ModelContract.from_metadata({p.key: p.value for p in onnx.load(path).metadata_props})


@pytest.mark.parametrize(
    ("spec", "half"),
    [
        (SQUARE, False),
        (replace(SQUARE, width=96, layout="NCHW", dtype="float32"), True),
        (replace(SQUARE, dynamic_size=True), True),
        (replace(SQUARE, dynamic_size=True, layout="NCHW", dtype="float32"), False),
    ],
    ids=["uint8", "float32-half", "uint8-dynamic-half", "float32-dynamic"],
)
def test_file_gives_what_the_model_gives(
    spec: InputSpec, half: bool, toy: YOLOX, tmp_path: Path
) -> None:
    contract = replace(CONTRACT, input=spec)
    path = tmp_path / "model.onnx"
    export(toy, contract, path, half=half)
    sizes = [(32, 32), (96, 32), (64, 160)] if spec.dynamic_size else [(spec.height, spec.width)]
    for height, width in sizes:
        images = sample_images(2, height, width)
        output = _run(path, images)
        assert output.dtype == np.float32
        assert output.shape == (2, contract.num_cells(height, width), 8)
        np.testing.assert_allclose(output, _run_torch(toy, images), atol=0.1 if half else 1e-4)
    assert _contract_of(path) == contract


def test_half_file_holds_half_the_bytes(toy: YOLOX, tmp_path: Path) -> None:
    export(toy, CONTRACT, tmp_path / "half.onnx", half=True)
    weights = onnx.load(tmp_path / "half.onnx").graph.initializer
    assert {w.data_type for w in weights if len(w.dims) == 4} == {onnx.TensorProto.FLOAT16}


@pytest.mark.heavy
def test_compact_file_holds_float16_and_computes_in_float32(toy: YOLOX, tmp_path: Path) -> None:
    whole, compact = tmp_path / "whole.onnx", tmp_path / "compact.onnx"
    export(toy, CONTRACT, whole)
    export(toy, CONTRACT, compact, compact=True)
    graph = onnx.load(compact).graph
    large = [w for w in graph.initializer if math.prod(w.dims) >= MIN_VALUES]
    assert large
    assert {w.data_type for w in large} == {onnx.TensorProto.FLOAT16}

    rounded = copy.deepcopy(onnx.load(whole))
    for tensor in rounded.graph.initializer:
        values = numpy_helper.to_array(tensor)
        if values.size >= MIN_VALUES:
            near = values.astype(np.float16).astype(np.float32)
            tensor.CopyFrom(numpy_helper.from_array(near, tensor.name))
    onnx.save(rounded, whole)
    images = sample_images(2, 64, 64)
    np.testing.assert_allclose(_run(compact, images), _run(whole, images), atol=1e-4)


def test_weights_beyond_float16_are_not_made_compact(toy: YOLOX, tmp_path: Path) -> None:
    huge = copy.deepcopy(toy)
    with torch.no_grad():
        next(p for p in huge.parameters() if p.numel() >= MIN_VALUES).fill_(1e9)
    with pytest.raises(ModelExportError, match="too large for float16"):
        export(huge, CONTRACT, tmp_path / "compact.onnx", compact=True)
    assert not (tmp_path / "compact.onnx").exists()


def test_every_promised_shape_is_compared(
    dynamic_export: tuple[Path, list[Difference]], fixed_export: tuple[Path, list[Difference]]
) -> None:
    def shapes(differences: list[Difference]) -> list[tuple[int, int, int]]:
        return [(d.batch, d.height, d.width) for d in differences]

    _, of_dynamic_size = dynamic_export
    _, of_fixed_size = fixed_export
    assert shapes(of_fixed_size) == [(1, 64, 64), (3, 64, 64)]
    assert shapes(of_dynamic_size) == [(1, 64, 64), (3, 64, 64), (1, 32, 96), (3, 32, 96)]
    assert all(0 <= d.mean <= d.largest < d.peak for d in of_dynamic_size)


@pytest.mark.parametrize("half", [False, True])
def test_a_graph_that_differs_from_the_model_is_never_written(
    half: bool, toy: YOLOX, tmp_path: Path, monkeypatch: pytest.MonkeyPatch
) -> None:
    def with_red_and_blue_swapped(model: YOLOX) -> YOLOX:
        wrong = folded(model)
        stem: Any = wrong.backbone.stem
        stem.conv.weight = nn.Parameter(stem.conv.weight.flip(1))
        return wrong

    monkeypatch.setattr(export_module, "folded", with_red_and_blue_swapped)
    with pytest.raises(ModelExportError, match="no file was written"):
        export(toy, CONTRACT, tmp_path / "model.onnx", half=half)
    assert list(tmp_path.iterdir()) == []


def test_a_slight_difference_is_found_as_well(
    toy: YOLOX, tmp_path: Path, monkeypatch: pytest.MonkeyPatch
) -> None:
    def with_one_bias_off(model: YOLOX) -> YOLOX:
        wrong = folded(model)
        head: Any = wrong.head
        head.obj_preds[0].bias.data += 0.01
        return wrong

    monkeypatch.setattr(export_module, "folded", with_one_bias_off)
    with pytest.raises(ModelExportError, match="no file was written"):
        export(toy, CONTRACT, tmp_path / "model.onnx")


def test_a_model_that_gives_nan_is_never_written(toy: YOLOX, tmp_path: Path) -> None:
    stem: Any = toy.backbone.stem
    nn.init.constant_(stem.conv.conv.weight, float("nan"))
    with pytest.raises(ModelExportError, match="no file was written"):
        export(toy, CONTRACT, tmp_path / "model.onnx")
    assert list(tmp_path.iterdir()) == []


@pytest.mark.parametrize("field", ["largest", "mean"])
@pytest.mark.parametrize("value", [float("nan"), float("inf"), 0.1])
def test_either_difference_can_refuse(field: str, value: float) -> None:
    close = Difference(1, 64, 64, largest=1e-6, mean=1e-7, peak=20.0)
    assert close.within(FLOAT32_TOLERANCE)
    assert not replace(close, **{field: value}).within(FLOAT32_TOLERANCE)


class PlacedBackbone(ToyBackbone):
    """One that knows where in a row a pixel is."""

    def forward(self, images: Tensor) -> tuple[Tensor, Tensor, Tensor]:
        """As above, of images that grow darker to the left."""
        return super().forward(images * torch.linspace(0.1, 1, images.shape[3]))


@pytest.mark.parametrize("dynamic_size", [False, True])
def test_a_graph_that_holds_a_size_of_its_own_is_never_written(
    dynamic_size: bool, toy: YOLOX, tmp_path: Path
) -> None:
    contract = replace(CONTRACT, input=replace(SQUARE, dynamic_size=dynamic_size))
    with pytest.raises(ModelExportError, match=r"cannot load the model|the model fails on"):
        export(YOLOX(PlacedBackbone(), toy.head), contract, tmp_path / "model.onnx")
    assert list(tmp_path.iterdir()) == []


def test_sizes_differ_in_nothing_but_what_the_file_says(
    dynamic_export: tuple[Path, list[Difference]], fixed_export: tuple[Path, list[Difference]]
) -> None:
    graphs = [onnx.load(path).graph for path, _ in (dynamic_export, fixed_export)]
    assert graphs[0].node == graphs[1].node
    assert graphs[0].initializer == graphs[1].initializer
    shapes = [
        [
            [axis.dim_param or axis.dim_value for axis in value.type.tensor_type.shape.dim]
            for value in (graph.input[0], graph.output[0])
        ]
        for graph in graphs
    ]
    assert shapes[0] == [["batch", "height", "width", 3], ["batch", "cells", 8]]
    assert shapes[1] == [["batch", 64, 64, 3], ["batch", 84, 8]]


def test_contract_with_too_few_classes_is_refused(toy: YOLOX, tmp_path: Path) -> None:
    contract = replace(CONTRACT, class_names=("red", "green"))
    with pytest.raises(ModelExportError, match=r"output is \(1, 84, 8\), and not \(1, 84, 7\)"):
        export(toy, contract, tmp_path / "model.onnx")
    assert list(tmp_path.iterdir()) == []


def test_bytes_are_converted_before_anything_else(
    dynamic_export: tuple[Path, list[Difference]],
) -> None:
    """TensorRT takes bytes in, and does nothing else with them."""
    for path in (dynamic_export[0], DEFAULT_MODEL):
        assert takers_of_input(onnx.load(path)) == {"Cast"}


@pytest.mark.parametrize(
    "contract",
    [
        replace(CONTRACT, score_activation="probabilities"),
        replace(CONTRACT, strides=(8, 16)),
        replace(CONTRACT, input=replace(SQUARE, color_order="RGB")),
        replace(CONTRACT, input=replace(SQUARE, batch=1)),
        replace(CONTRACT, input=replace(SQUARE, dtype="float32", value_range=(0.0, 1.0))),
    ],
)
def test_promise_that_no_export_keeps_is_refused(
    contract: ModelContract, toy: YOLOX, tmp_path: Path
) -> None:
    with pytest.raises(ModelExportError, match="the contract says otherwise"):
        export(toy, contract, tmp_path / "model.onnx")


def test_file_that_cannot_be_written_is_an_error(toy: YOLOX, tmp_path: Path) -> None:
    (tmp_path / "file").touch()
    with pytest.raises(ModelExportError, match="cannot write"):
        export(toy, CONTRACT, tmp_path / "file" / "model.onnx")


def test_the_model_stays_as_it_is(toy: YOLOX, tmp_path: Path) -> None:
    toy.train()
    before = copy.deepcopy(toy.state_dict())
    modules = [type(module) for module in toy.modules()]
    export(toy, CONTRACT, tmp_path / "model.onnx", half=True)
    assert all(torch.equal(value, before[name]) for name, value in toy.state_dict().items())
    assert [type(module) for module in toy.modules()] == modules
    assert toy.training


def test_folding_keeps_the_function() -> None:
    torch.manual_seed(0)
    model = _with_trained_norms(build("nano", num_classes=2))
    images = sample_images(1, 64, 96)
    lean = folded(model)
    expected = _run_torch(model, images)
    np.testing.assert_allclose(
        _run_torch(lean, images), expected, atol=1e-4 * np.abs(expected).max()
    )
    assert not [m for m in lean.modules() if isinstance(m, (nn.BatchNorm2d, Focus))]


def test_graph_computes_no_shapes_and_holds_no_notes(
    dynamic_export: tuple[Path, list[Difference]],
) -> None:
    path, _ = dynamic_export
    operators = {node.op_type for node in onnx.load(path).graph.node}
    steps = {"Add", "Cast", "Concat", "Conv", "Mul", "Reshape", "Resize", "Sigmoid", "Transpose"}
    assert operators == steps
    # The exporter notes on each node the source line that it comes from.
    assert b"File " not in path.read_bytes()


def _export_by_command(*arguments: str | Path) -> None:
    call(export_command.run, *arguments)


def test_command_exports_the_released_nano(
    shared_data: Path, tmp_path: Path, capfd: pytest.CaptureFixture[str]
) -> None:
    weights = shared_data / "weights" / "yolox_nano_state_bnfused.npz"
    path = tmp_path / "models" / "nano.onnx"
    _export_by_command(
        *("--variant", "nano", "--weights", weights, "--output", path),
        *("--confidence", "0.35", "--source", "YOLOX 0.1.1rc0"),
        *("--least-side", "224"),
    )
    output = capfd.readouterr()
    assert output.out == f"{path}\n"
    assert [line.split(":")[0] for line in output.err.splitlines()] == [
        "the class names are taken to be COCO's 80",
        "batch 1 of 416x416",
        "batch 3 of 416x416",
        "batch 1 of 192x448",
        "batch 3 of 192x448",
    ]
    contract = _contract_of(path)
    assert (contract.name, len(contract.version), contract.num_classes) == ("yolox-nano", 12, 80)
    assert contract.input == InputSpec("images", 416, 416, dynamic_size=True, least_side=224)
    assert contract.recommended == replace(USUAL_THRESHOLDS, confidence=0.35)
    assert contract.provenance == Provenance(source="YOLOX 0.1.1rc0")
    for image in ("dog", "000000397133", "000000184324"):
        golden = np.load(shared_data / "golden" / f"official_nano_{image}.npz")
        rows = _run(path, golden["letterbox_u8_chw"].transpose(1, 2, 0)[None])
        rows[..., 4:] = 1 / (1 + np.exp(-rows[..., 4:]))
        assert np.abs(rows - golden["raw_output"]).max() < 1e-3


@pytest.mark.heavy
def test_command_takes_a_model_of_ones_own(tmp_path: Path) -> None:
    torch.manual_seed(0)
    torch.save(build("nano", 2, "coupled").state_dict(), tmp_path / "weights.pth")
    (tmp_path / "names.txt").write_text("cell\nplatelet\n")
    path = tmp_path / "model.onnx"
    _export_by_command(
        *("--variant", "nano", "--head", "coupled", "--names", tmp_path / "names.txt"),
        *("--weights", tmp_path / "weights.pth", "--output", path, "--size", "64x96"),
        *("--input", "float32", "--box-coding", "anchor_point", "--half"),
        *("--name", "blood", "--model-version", "7", "--fixed-size"),
    )
    assert _contract_of(path) == ModelContract(
        name="blood",
        version="7",
        input=InputSpec("images", 64, 96, layout="NCHW", dtype="float32"),
        class_names=("cell", "platelet"),
        box_coding="anchor_point",
    )


@pytest.mark.parametrize(
    ("arguments", "message"),
    [
        (("--names", "coco"), "holds yolox-nano .* 2 classes"),
        (("--variant", "tiny"), "but the model is yolox-tiny"),
        (("--size", "100"), "100x100 is not a multiple"),
        (("--least-side", "100"), "least_side 100"),
        (("--least-side", "64", "--fixed-size"), "least_side 64"),
        (("--confidence", "1.5"), "recommended confidence"),
        (("--weights", "nowhere.pth"), "cannot read nowhere.pth"),
        (("--names", "nowhere.txt"), "cannot read class names"),
        (("--output", "."), "it is a folder"),
    ],
)
def test_command_says_what_is_wrong(
    arguments: tuple[str, str], message: str, tmp_path: Path
) -> None:
    torch.save(build("nano", 2).state_dict(), tmp_path / "weights.pth")
    (tmp_path / "names.txt").write_text("cell\nplatelet\n")
    with pytest.raises(ModelExportError, match=message):
        _export_by_command(
            *("--variant", "nano", "--weights", tmp_path / "weights.pth"),
            *("--names", tmp_path / "names.txt", "--output", tmp_path / "model.onnx", *arguments),
        )
    assert not (tmp_path / "model.onnx").exists()


@pytest.mark.parametrize("size", ["", "64x", "64x64x3", "large"])
def test_command_wants_a_size_in_pixels(size: str) -> None:
    with pytest.raises(CycloptsError, match="is not N or HxW"):
        _export_by_command(
            *("--variant", "nano", "--weights", "w", "--output", "o", f"--size={size}")
        )


def test_describing_the_command_needs_no_torch() -> None:
    code = (
        "import sys; from model_export.__main__ import main; main(['export', '--help']);"
        "sys.exit('torch' in sys.modules or 'onnx' in sys.modules)"
    )
    root = ROOT
    assert subprocess.run([sys.executable, "-c", code], cwd=root, check=False).returncode == 0


@pytest.mark.heavy
def test_pixel_values_of_a_legacy_model_go_into_the_graph(tmp_path: Path) -> None:
    model = build("pico", 3, "decoupled").eval()
    contract = ModelContract(
        "m", "1", InputSpec("images", 64, 64, dynamic_size=True), ("a", "b", "c")
    )
    export(model, contract, tmp_path / "legacy.onnx", values=LEGACY)

    images = np.random.default_rng(0).integers(0, 256, (1, 64, 64, 3), dtype=np.uint8)
    mean, std = np.array(LEGACY.mean), np.array(LEGACY.std)
    normalised = ((images[..., ::-1] / 255 - mean) / std).transpose(0, 3, 1, 2)
    with torch.inference_mode():
        expected = model(torch.from_numpy(normalised.astype(np.float32))).numpy()
    np.testing.assert_allclose(_run(tmp_path / "legacy.onnx", images), expected, atol=1e-3)
