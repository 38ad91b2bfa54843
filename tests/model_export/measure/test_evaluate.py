"""A server's detections are measured with COCO's metrics."""

import json
import threading
from collections.abc import Iterator
from dataclasses import dataclass, field
from http.server import BaseHTTPRequestHandler, ThreadingHTTPServer
from pathlib import Path
from typing import Any
from urllib.parse import parse_qsl, urlsplit

import cv2
import httpx2
import numpy as np
import onnxruntime
import pytest
import torch
from numpy.typing import NDArray

from model_export.__main__ import main
from model_export.data.annotations import AnnotatedImage
from model_export.data.checked_images import check_images
from model_export.data.class_names import COCO_CLASS_NAMES
from model_export.data.reading import read_annotations
from model_export.errors import ModelExportError
from model_export.graphs.onnx_file import save_with_contract
from model_export.measure.coco import RECALLS, CocoResult, CocoSet, Metrics, measure, read_coco_set
from model_export.measure.evaluate import Found, detect_all
from model_export.measure.local_detector import LocalDetector, onnx_detector
from model_export.measure.server_detector import MAX_TRIES, MAX_WAIT_S, ServerDetector, connect
from model_export.measure.validation_data import coco_set_of_images
from model_export.model.yolox import build
from service.core.contract import InputSpec, ModelContract
from service.core.decode import anchor_grid, decode_candidates
from service.core.letterbox import LetterboxMode, letterbox
from service.core.suppress import DetectionOptions, suppress
from support.onnx_models import tiny_yolox_model
from support.pictures import plain

# Image file content -> boxes (class, score, x1, y1, x2, y2), as the stub server finds them.
PERFECT = {
    b"first": [("cat", 0.9, 10, 20, 60, 90), ("dog", 0.8, 100, 100, 300, 300)],
    b"second": [("cat", 0.7, 5, 5, 25, 25)],
}


def coco_json(**changes: Any) -> dict[str, Any]:
    """Annotations that agree with PERFECT; without the fields that pycocotools would miss."""
    boxes = [(7, 3, [10, 20, 50, 70]), (7, 9, [100, 100, 200, 200]), (8, 3, [5, 5, 20, 20])]
    return {
        "images": [{"id": 7, "file_name": "1.jpg"}, {"id": 8, "file_name": "two/2.jpg"}],
        "categories": [{"id": 3, "name": "cat"}, {"id": 9, "name": "dog"}],
        "annotations": [
            {"image_id": image, "category_id": category, "bbox": box}
            for image, category, box in boxes
        ],
    } | changes


@dataclass
class Stub:
    """A server that knows the answers.

    Attributes:
        url: Where it listens.
        answers: Image bytes to boxes.
        busy: Retry-After of each of the next 503 answers to /detect; None sends no such header.
        requests: Query and headers of each request to /detect.
    """

    url: str = ""
    answers: dict[bytes, list[tuple[Any, ...]]] = field(default_factory=lambda: dict(PERFECT))
    class_names: tuple[str, ...] = ("dog", "bird", "cat")
    busy: list[str | None] = field(default_factory=list)
    requests: list[tuple[dict[str, str], Any]] = field(default_factory=list)
    garbled: bool = False


def detection(
    name: str, score: float, x1: float, y1: float, x2: float, y2: float
) -> dict[str, Any]:
    box = {"x1": x1, "y1": y1, "x2": x2, "y2": y2}
    return {
        "box": box,
        "score": score,
        "objectness": 1.0,
        "class_score": 1.0,
        "class_id": 0,
        "class_name": name,
    }


def handler(stub: Stub) -> type[BaseHTTPRequestHandler]:
    class Handler(BaseHTTPRequestHandler):
        def do_GET(self) -> None:
            self.answer(200, {"contract": {"class_names": stub.class_names}})

        def do_POST(self) -> None:
            image = self.rfile.read(int(self.headers["Content-Length"]))
            stub.requests.append((dict(parse_qsl(urlsplit(self.path).query)), self.headers))
            if stub.busy:
                self.answer(503, {"detail": "the queue is full"}, stub.busy.pop(0))
            elif stub.garbled:
                self.answer(200, {"hello": "world"})
            elif image not in stub.answers:
                self.answer(422, {"title": "Bad image", "detail": "it cannot be decoded"})
            else:
                found = [detection(*item) for item in stub.answers[image]]
                self.answer(200, {"results": [{"detections": found, "error": None}]})

        def answer(self, status: int, body: Any, retry_after: str | None = None) -> None:
            content = json.dumps(body).encode()
            self.send_response(status)
            self.send_header("Content-Length", str(len(content)))
            if retry_after is not None:
                self.send_header("Retry-After", retry_after)
            self.end_headers()
            self.wfile.write(content)

        def log_message(self, format: str, *args: object) -> None:  # noqa: A002
            pass

    return Handler


@pytest.fixture
def stub() -> Iterator[Stub]:
    answers = Stub()
    server = ThreadingHTTPServer(("127.0.0.1", 0), handler(answers))
    answers.url = f"http://127.0.0.1:{server.server_port}"
    thread = threading.Thread(target=server.serve_forever, kwargs={"poll_interval": 0.01})
    thread.start()
    yield answers
    server.shutdown()
    server.server_close()
    thread.join()


@pytest.fixture
def data(tmp_path: Path) -> Path:
    """A folder with `coco.json` and the images that it lists."""
    (tmp_path / "two").mkdir()
    (tmp_path / "1.jpg").write_bytes(b"first")
    (tmp_path / "two" / "2.jpg").write_bytes(b"second")
    (tmp_path / "coco.json").write_text(json.dumps(coco_json()))
    return tmp_path


class Canned:
    """A detector that needs no server."""

    def __init__(self, answers: dict[bytes, list[tuple[Any, ...]]]) -> None:
        self.answers = answers

    def class_names(self) -> tuple[str, ...]:
        return ("cat", "dog", "bird")

    def detect(self, image: bytes) -> list[Found]:
        return [Found(name, score, tuple(box)) for name, score, *box in self.answers[image]]


def metrics_of(data: Path, answers: dict[bytes, list[tuple[Any, ...]]]) -> dict[str, Any]:
    coco = read_coco_set(data / "coco.json", data)
    results = detect_all(Canned(answers), coco, concurrency=2, on_image=lambda: None)
    metrics = measure(coco, results)
    return {**metrics.overall, **metrics.ap_by_class}


def test_perfect_boxes_have_ap_one(data: Path) -> None:
    metrics = metrics_of(data, PERFECT)

    assert metrics["AP"] == metrics["AP50"] == metrics["AR 100"] == pytest.approx(1)
    assert (metrics["cat"], metrics["dog"]) == (pytest.approx(1), pytest.approx(1))
    assert metrics["AP small"] == metrics["AP large"] == pytest.approx(1)


def test_nothing_found_has_ap_zero(data: Path) -> None:
    assert metrics_of(data, {b"first": [], b"second": []})["AP"] == 0


def test_missed_class_shows_in_its_own_ap(data: Path) -> None:
    cats_only = {image: boxes[:1] for image, boxes in PERFECT.items()}
    metrics = metrics_of(data, cats_only)

    assert (metrics["AP"], metrics["cat"], metrics["dog"]) == (pytest.approx(0.5), 1, 0)


def test_shifted_box_counts_only_at_low_iou(data: Path) -> None:
    # 50 x 70 pixels moved by 10: IoU 40 / 60 = 0.667; the others stay perfect
    shifted = PERFECT | {b"first": [("cat", 0.9, 20, 20, 70, 90), PERFECT[b"first"][1]]}
    metrics = metrics_of(data, shifted)

    assert metrics["AP50"] == pytest.approx(1)
    assert metrics["AP75"] < 1


def test_classes_of_the_model_only_are_left_out(data: Path) -> None:
    birds = PERFECT | {b"second": [*PERFECT[b"second"], ("bird", 0.99, 0, 0, 9, 9)]}

    assert metrics_of(data, birds)["AP"] == pytest.approx(1)


def test_metric_without_annotations_is_none(data: Path) -> None:
    (data / "coco.json").write_text(json.dumps(coco_json(annotations=[])))

    assert metrics_of(data, PERFECT)["AP"] is None


def test_annotation_ids_may_start_at_zero(data: Path) -> None:
    annotations = [box | {"id": i} for i, box in enumerate(coco_json()["annotations"])]
    (data / "coco.json").write_text(json.dumps(coco_json(annotations=annotations)))

    assert metrics_of(data, PERFECT)["AP"] == pytest.approx(1)


def test_nulls_and_numbers_as_names_are_read(data: Path) -> None:
    annotations = [box | {"iscrowd": None, "area": None} for box in coco_json()["annotations"]]
    content = coco_json(annotations=annotations)
    content["categories"][0]["name"] = 7
    (data / "coco.json").write_text(json.dumps(content))

    read = read_coco_set(data / "coco.json", data)

    assert read.categories == {3: "7", 9: "dog"}
    perfect: list[CocoResult] = [{**box, "score": 0.9} for box in coco_json()["annotations"]]
    assert measure(read, perfect).overall["AP"] == pytest.approx(1)


def test_two_images_of_one_id_are_refused(data: Path) -> None:
    (data / "coco.json").write_text(json.dumps(coco_json(images=coco_json()["images"] * 2)))

    with pytest.raises(ModelExportError, match="two images have the id 7"):
        read_coco_set(data / "coco.json", data)


def test_crowd_is_neither_hit_nor_miss(data: Path) -> None:
    crowd = {"image_id": 8, "category_id": 9, "bbox": [0, 0, 100, 100], "area": 5000}
    annotations = [*coco_json()["annotations"], crowd | {"iscrowd": 1}]
    (data / "coco.json").write_text(json.dumps(coco_json(annotations=annotations)))

    assert metrics_of(data, PERFECT)["AP"] == pytest.approx(1)


def test_results_keep_the_order_of_the_set(data: Path) -> None:
    coco = read_coco_set(data / "coco.json", data)
    results = detect_all(Canned(PERFECT), coco, concurrency=2, on_image=lambda: None)

    assert [(result["image_id"], result["category_id"]) for result in results] == [
        (7, 3),
        (7, 9),
        (8, 3),
    ]
    assert results[0]["bbox"] == [10, 20, 50, 70]


def test_precision_of_a_class_falls_where_a_false_box_outranks_true_ones(data: Path) -> None:
    """One of two cats is found before a false box and one after it; dogs are not annotated."""
    (data / "coco.json").write_text(
        json.dumps(coco_json(annotations=coco_json()["annotations"][::2]))
    )
    coco = read_coco_set(data / "coco.json", data)
    false = ("cat", 0.8, 400, 400, 450, 450)
    # 50 x 70 pixels moved by 16: IoU 34 / 66 = 0.515
    found = PERFECT | {b"first": [("cat", 0.9, 26, 20, 76, 90), false]}
    results = detect_all(Canned(found), coco, concurrency=1, on_image=lambda: None)
    metrics = measure(coco, results)

    assert list(metrics.precision_by_class) == ["cat"]
    curve = dict(zip(RECALLS, metrics.precision_by_class["cat"], strict=True))
    assert (curve[0.0], curve[0.5]) == (pytest.approx(1), pytest.approx(1))
    assert (curve[0.51], curve[1.0]) == (pytest.approx(2 / 3), pytest.approx(2 / 3))
    assert metrics.ap50_by_class["cat"] == pytest.approx(np.mean(list(curve.values())))
    assert metrics.ap50_by_class["cat"] == metrics.overall["AP50"]
    assert metrics.ap50_by_class["dog"] is None
    assert list(json.loads(metrics.to_json())) == ["overall", "ap_by_class", "ap50_by_class"]


def test_checked_images_are_measured_like_the_coco_json_of_them(data: Path) -> None:
    boxes = [[[10, 20, 60, 90], [100, 100, 300, 300]], [[5, 5, 25, 25]]]
    ids = [[0, 1], [0]]
    images = [
        AnnotatedImage(
            path=data / name,
            image_id=i,
            size=(400, 400),
            boxes_xyxy=np.array(boxes[i], np.float32),
            class_ids=np.array(ids[i], np.int64),
        )
        for i, name in enumerate(("1.jpg", "two/2.jpg"))
    ]
    coco = coco_set_of_images(images, ("cat", "dog", "bird"))
    shifted = PERFECT | {b"first": [("cat", 0.9, 20, 20, 70, 90), PERFECT[b"first"][1]]}
    results = detect_all(Canned(shifted), coco, concurrency=1, on_image=lambda: None)
    metrics = measure(coco, results)

    assert coco.categories == {1: "cat", 2: "dog", 3: "bird"}
    assert metrics.ap_by_class["bird"] is None
    known = {name: value for name, value in metrics.ap_by_class.items() if name != "bird"}
    assert {**metrics.overall, **known} == metrics_of(data, shifted)


def metrics_of_shaken_truth(coco: CocoSet) -> Metrics:
    """Results from the true boxes, moved a little, with scores at random: the same for any ids."""
    rng = np.random.default_rng(0)
    boxes = sorted(
        (path.name, coco.categories[box["category_id"]], box["bbox"], image, box["category_id"])
        for image, path in coco.images.items()
        for box in coco.truth.imgToAnns[image]
    )
    results = [
        CocoResult(
            image_id=image,
            category_id=category,
            bbox=(bbox + rng.normal(0, 6, 4)).tolist(),
            score=rng.random(),
        )
        for _, _, bbox, image, category in boxes
    ]
    return measure(coco, results)


def test_voc_folder_has_the_metrics_of_its_coco_json(shared_data: Path) -> None:
    root = shared_data / "bccd"
    names = ("RBC", "WBC", "Platelets")
    images = check_images(read_annotations(root / "BCCD", split="val", class_names=names))
    voc = metrics_of_shaken_truth(coco_set_of_images(images.images, images.class_names))
    coco = metrics_of_shaken_truth(read_coco_set(root / "val.json", root / "BCCD" / "JPEGImages"))

    assert 0.1 < voc.overall["AP"] < 0.9
    assert voc == coco


@pytest.mark.parametrize("name", ["image_id", "category_id", "bbox"])
@pytest.mark.parametrize("gone", [True, False])
def test_annotation_that_lacks_something_is_named(data: Path, name: str, gone: bool) -> None:
    content = coco_json()
    second = content["annotations"][1]
    content["annotations"][1] = {
        **{key: value for key, value in second.items() if key != name},
        **({} if gone else {name: None}),
    }
    (data / "coco.json").write_text(json.dumps(content))

    with pytest.raises(ModelExportError, match=f"annotation 2 has no {name}"):
        read_coco_set(data / "coco.json", data)


def test_two_categories_of_one_name_are_refused(data: Path) -> None:
    categories = [{"id": 3, "name": "cat"}, {"id": 9, "name": "cat"}]
    (data / "coco.json").write_text(json.dumps(coco_json(categories=categories)))

    with pytest.raises(ModelExportError, match="categories 3 and 9 are both called cat"):
        read_coco_set(data / "coco.json", data)


def test_file_that_is_not_there_is_told_in_plain_words(tmp_path: Path) -> None:
    missing = tmp_path / "nope.json"
    told = "cannot read .*nope.json: No such file or directory$"

    with pytest.raises(ModelExportError, match=told):
        read_coco_set(missing, tmp_path)
    with pytest.raises(ModelExportError, match=told):
        read_annotations(missing)


@pytest.mark.parametrize(
    "content",
    [
        "not json",
        "[]",
        "{}",
        '{"images": 3}',
        '{"images": [], "categories": [], "annotations": [3]}',
    ],
)
def test_file_that_is_no_coco_json_is_refused(data: Path, content: str) -> None:
    (data / "coco.json").write_text(content)

    with pytest.raises(ModelExportError, match="no COCO annotation file"):
        read_coco_set(data / "coco.json", data)


def evaluate(stub: Stub, data: Path, *more: str) -> int:
    arguments = ["--server", stub.url, "--annotations", str(data / "coco.json")]
    return main(["evaluate", *arguments, "--images", str(data), *more])


def test_command_prints_metrics_and_writes_files(
    stub: Stub, data: Path, capsys: pytest.CaptureFixture[str]
) -> None:
    detections, metrics = data / "detections.json", data / "metrics.json"
    assert evaluate(stub, data, "--output", str(detections), "--metrics", str(metrics)) == 0

    captured = capsys.readouterr()
    assert captured.out.splitlines()[0].split() == ["AP", "1.0000"]
    assert "AP of dog  1.0000" in captured.out
    assert captured.err == ""
    assert len(json.loads(detections.read_text())) == 3
    assert json.loads(metrics.read_text())["overall"]["AP"] == pytest.approx(1)


def test_options_and_key_go_with_each_request(stub: Stub, data: Path) -> None:
    evaluate(stub, data, "--nms", "soft-mean", "--class-agnostic", "--api-key", "secret")

    assert len(stub.requests) == 2
    for query, headers in stub.requests:
        assert query == {
            "confidence": "0.001",
            "score_by": "joint",
            "nms": "soft-mean",
            "iou": "0.65",
            "class_agnostic": "true",
        }
        assert headers["X-API-Key"] == "secret"
        assert headers["Content-Type"] == "application/octet-stream"


def test_key_may_come_from_the_environment(
    stub: Stub, data: Path, monkeypatch: pytest.MonkeyPatch
) -> None:
    monkeypatch.setenv("YOLOX_API_KEY", "from-env")
    evaluate(stub, data)

    assert stub.requests[0][1]["X-API-Key"] == "from-env"


def test_refused_image_is_named(stub: Stub, data: Path, capsys: pytest.CaptureFixture[str]) -> None:
    (data / "1.jpg").write_bytes(b"broken")

    assert evaluate(stub, data) == 1
    assert "1.jpg: /detect answers 422: it cannot be decoded" in capsys.readouterr().err


def test_missing_image_is_named_before_anything_is_sent(
    stub: Stub, data: Path, capsys: pytest.CaptureFixture[str]
) -> None:
    (data / "two" / "2.jpg").unlink()

    assert evaluate(stub, data) == 1
    assert "2.jpg" in capsys.readouterr().err
    assert stub.requests == []


def test_folder_that_is_not_there_is_told_before_anything_is_sent(
    stub: Stub, data: Path, capsys: pytest.CaptureFixture[str]
) -> None:
    for path in (data / "none" / "metrics.json", data):
        assert evaluate(stub, data, "--metrics", str(path)) == 1
        assert "cannot write" in capsys.readouterr().err
    assert stub.requests == []


def test_model_with_no_class_of_the_set_is_refused(
    stub: Stub, data: Path, capsys: pytest.CaptureFixture[str]
) -> None:
    stub.class_names = ("RBC", "WBC")

    assert evaluate(stub, data) == 1
    assert "the model knows RBC, WBC; the annotations have cat, dog" in capsys.readouterr().err
    assert stub.requests == []


def test_server_that_is_something_else_is_told(
    stub: Stub, data: Path, capsys: pytest.CaptureFixture[str]
) -> None:
    stub.garbled = True

    assert evaluate(stub, data) == 1
    assert "does not answer as this service does" in capsys.readouterr().err


@pytest.mark.parametrize("url", ["http://127.0.0.1:1", "http://[broken", "no-scheme"])
def test_server_that_is_not_there_is_one_line(
    url: str, data: Path, capsys: pytest.CaptureFixture[str]
) -> None:
    assert evaluate(Stub(url), data) == 1

    captured = capsys.readouterr()
    assert captured.out == ""
    assert captured.err.startswith("error: ")
    assert captured.err.count("\n") == 1


@pytest.fixture
def client(stub: Stub) -> Iterator[httpx2.Client]:
    with connect(stub.url, None) as connected:
        yield connected


def test_busy_server_is_asked_again_after_the_time_it_names(
    stub: Stub, client: httpx2.Client
) -> None:
    stub.busy = ["7", None, "Wed, 21 Oct 2026 07:28:00 GMT", "86400"]
    waits: list[float] = []

    found = ServerDetector(client, {}, sleep=waits.append).detect(b"second")

    assert found == [Found("cat", 0.7, (5, 5, 25, 25))]
    assert waits == [7, 1, 1, MAX_WAIT_S]


def test_server_that_stays_busy_is_given_up(stub: Stub, client: httpx2.Client) -> None:
    stub.busy = ["0"] * MAX_TRIES

    with pytest.raises(ModelExportError, match="503: the queue is full"):
        ServerDetector(client, {}, sleep=lambda _: None).detect(b"second")
    assert len(stub.requests) == MAX_TRIES


class Nano:
    """The official YOLOX-nano with the official evaluation settings; boxes are not clipped."""

    def __init__(self, session: onnxruntime.InferenceSession) -> None:
        self.session = session
        size = InputSpec("images", 416, 416)
        self.contract = ModelContract(
            "nano", "1", size, COCO_CLASS_NAMES, score_activation="probabilities"
        )
        self.options = DetectionOptions(
            nms="hard", iou=0.65, class_agnostic=False, confidence=0.001, max_detections=10_000
        )

    def class_names(self) -> tuple[str, ...]:
        return self.contract.class_names

    def detect(self, image: bytes) -> list[Found]:
        pixels = cv2.imdecode(np.frombuffer(image, np.uint8), cv2.IMREAD_COLOR)
        assert pixels is not None
        boxed, way_back = letterbox(pixels.astype(np.uint8), 416, 416)
        tensor = boxed.transpose(2, 0, 1)[None].astype(np.float32)
        (rows,) = self.session.run(None, {"images": tensor})
        candidates = decode_candidates(
            rows[0],
            anchor_grid(416, 416, self.contract.strides),
            self.contract,
            confidence=0.001,
            score_by="joint",
            max_candidates=10_000,
        )
        found = suppress(candidates, self.options)
        boxes = found.boxes_xyxy / way_back.ratio
        return [
            Found(COCO_CLASS_NAMES[class_id], float(score), tuple(map(float, box)))
            for class_id, score, box in zip(found.class_ids, found.scores, boxes, strict=True)
        ]


def test_official_nano_has_its_official_metrics(shared_data: Path) -> None:
    weights = shared_data / "weights" / "yolox_nano.onnx"
    session = onnxruntime.InferenceSession(weights, providers=["CPUExecutionProvider"])
    subset = shared_data / "coco-subset"
    coco = read_coco_set(subset / "instances_boxes.json", subset / "images")

    results = detect_all(Nano(session), coco, concurrency=2, on_image=lambda: None)
    metrics = measure(coco, results)

    golden = json.loads((shared_data / "golden" / "official_nano.json").read_text())
    official = golden["coco_eval"]["shared"]["boxes"]
    assert len(results) == official["detections"]
    for name in ("AP", "AP50", "AP75"):
        assert metrics.overall[name] == pytest.approx(official[name], abs=1e-4)
    assert metrics.overall["AR 100"] == pytest.approx(official["AR100"], abs=1e-4)


@pytest.mark.parametrize(
    ("arguments", "complaint"),
    [
        (["--weights", "w.npz"], "there is no such file"),
        (["--model", "missing.onnx"], "cannot load the model"),
    ],
)
def test_what_cannot_be_measured_is_one_clear_line(
    arguments: list[str],
    complaint: str,
    data: Path,
    capsys: pytest.CaptureFixture[str],
) -> None:
    common = ["--annotations", str(data / "coco.json"), "--images", str(data)]
    assert main(["evaluate", *common, *arguments]) == 1
    assert complaint in capsys.readouterr().err


@pytest.mark.parametrize(
    ("extra", "complaint"),
    [
        ([], "the weights have 3 classes; add --names"),
        (["--names", "names.txt", "--size", "100"], "multiple of the largest"),
    ],
)
def test_weights_say_their_variant_and_number_of_classes(
    extra: list[str],
    complaint: str,
    tmp_path: Path,
    data: Path,
    monkeypatch: pytest.MonkeyPatch,
    capsys: pytest.CaptureFixture[str],
) -> None:
    monkeypatch.chdir(tmp_path)
    Path("names.txt").write_text("a\nb\nc\n")
    torch.save(build("pico", 3, "decoupled").state_dict(), "w.pth")
    common = ["--annotations", str(data / "coco.json"), "--images", str(data)]
    assert main(["evaluate", *common, "--weights", "w.pth", *extra]) == 1
    assert complaint in capsys.readouterr().err


@pytest.mark.parametrize(
    ("option", "value"),
    [
        ("--confidence", "2"),
        ("--confidence", "-1"),
        ("--confidence", "nan"),
        ("--iou", "7"),
        ("--sigma", "0"),
        ("--sigma", "-1"),
        ("--sigma", "nan"),
    ],
)
def test_threshold_without_a_meaning_is_refused(
    option: str, value: str, capsys: pytest.CaptureFixture[str]
) -> None:
    common = ["--model", "m.onnx", "--annotations", "a.json", "--images", "."]
    assert main(["evaluate", *common, f"{option}={value}"]) == 2
    assert f"{option}: {value} is not within" in capsys.readouterr().err


def test_an_onnx_file_without_a_contract_is_sent_to_adopt(tmp_path: Path) -> None:
    path = tmp_path / "alien.onnx"
    path.write_bytes(tiny_yolox_model().SerializeToString())
    with pytest.raises(ModelExportError, match="adopt"):
        onnx_detector(path, DetectionOptions())


@pytest.mark.parametrize("batch", [None, 2])
def test_an_onnx_file_finds_what_its_rows_say(tmp_path: Path, batch: int | None) -> None:
    """The tiny model finds its objects where the picture is white."""
    spec = InputSpec("images", 64, 64, batch=batch, layout="NCHW", dtype="float32")
    contract = ModelContract("tiny", "1", spec, ("red", "green", "blue"))
    path = tmp_path / "tiny.onnx"
    save_with_contract(tiny_yolox_model(batch=batch), contract, path)
    detector = onnx_detector(path, DetectionOptions(nms="none"))
    white = cv2.imencode(".png", np.full((64, 64, 3), 255, np.uint8))[1].tobytes()
    black = cv2.imencode(".png", np.zeros((64, 64, 3), np.uint8))[1].tobytes()
    assert detector.class_names() == ("red", "green", "blue")
    assert len(detector.detect(white)) == contract.num_cells(64, 64)
    assert detector.detect(black) == []
    for broken, complaint in ((b"", "empty"), (b"text", "accepted type"), (white[:60], "decoded")):
        with pytest.raises(ModelExportError, match=complaint):
            detector.detect(broken)


@pytest.mark.parametrize(
    ("dynamic_size", "mode", "shape"),
    [
        (True, None, (1, 64, 128, 3)),
        (True, "square", (1, 128, 128, 3)),
        (False, None, (1, 128, 128, 3)),
    ],
)
def test_images_are_fitted_as_a_server_on_a_cpu_fits_them(
    dynamic_size: bool, mode: LetterboxMode | None, shape: tuple[int, ...]
) -> None:
    spec = InputSpec("images", 128, 128, dynamic_size=dynamic_size)
    contract = ModelContract("tiny", "1", spec, ("cat",))
    seen: list[tuple[int, ...]] = []

    def network(images: NDArray[np.uint8]) -> NDArray[np.floating]:
        seen.append(images.shape)
        cells = contract.num_cells(*images.shape[1:3])
        return np.full((1, cells, contract.output_channels), -9, np.float32)

    LocalDetector(network, contract, DetectionOptions(), mode).detect(plain(width=200, height=90))
    assert seen == [shape]


def test_how_a_server_fits_images_is_its_own_business(
    tmp_path: Path, capsys: pytest.CaptureFixture[str]
) -> None:
    (tmp_path / "coco.json").write_text(json.dumps(coco_json()))
    (tmp_path / "two").mkdir()
    for name in ("1.jpg", "two/2.jpg"):
        (tmp_path / name).write_bytes(b"first")
    arguments = ["--annotations", str(tmp_path / "coco.json"), "--images", str(tmp_path)]
    command = ["evaluate", "--server", "http://127.0.0.1:9", "--letterbox", "square", *arguments]
    assert main(command) == 1
    assert "server's setting" in capsys.readouterr().err
