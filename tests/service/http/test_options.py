"""Every option changes the answer, on whichever way it comes, and a deadline ends a request."""

import base64
from collections.abc import Iterator
from concurrent.futures import ThreadPoolExecutor
from typing import Any

import numpy as np
import pytest
from numpy.typing import NDArray
from starlette.testclient import TestClient

from support.client import boxes, problem, serving
from support.engines import LOGIT_NEVER, FakeEngine
from support.pictures import plain

# Low enough that nothing is lost to it, however an option decays a score.
CONFIDENCE = 0.1
# Scores of the two boxes that the engine below finds, and of their classes.
BETTER, WORSE, CLASS = 0.9, 0.8, 0.75
OVERLAP = 0.6


class OverlappingEngine(FakeEngine):
    """Finds a cat in every image, and 8 px to its right a less likely dog: 32 px squares both."""

    def rows_of(self, image: NDArray[np.uint8]) -> NDArray[np.floating]:
        height, width = image.shape[:2]
        cells = self.contract.num_cells(height, width)
        rows = np.full((cells, self.contract.output_channels), LOGIT_NEVER, dtype=np.float32)
        for class_id, objectness in enumerate((BETTER, WORSE)):
            row = rows[4 * (width // 8) + 4 + class_id]
            row[:4] = (0.5, 0.5, np.log(4), np.log(4))
            row[4], row[5 + class_id] = logit(objectness), logit(CLASS)
        return rows


def logit(probability: float) -> float:
    return float(np.log(probability / (1 - probability)))


def decayed(score: float, sigma: float) -> float:
    return float(score * np.exp(-(OVERLAP**2) / sigma))


def as_query(client: TestClient, options: dict[str, Any]) -> Any:
    return client.post(
        "/detect", content=plain(), headers={"Content-Type": "image/png"}, params=options
    )


def as_fields(client: TestClient, options: dict[str, Any]) -> Any:
    return client.post("/detect", data=options, files={"images": ("a.png", plain())})


def as_json(client: TestClient, options: dict[str, Any]) -> Any:
    return client.post("/detect", json={"images": [base64.b64encode(plain()).decode()], **options})


# Each differs from what the line without it gives: the first one, or soft-gaussian's.
CASES: list[tuple[dict[str, Any], list[float]]] = [
    ({}, [BETTER, decayed(WORSE, WORSE)]),
    ({"score_by": "joint"}, [BETTER * CLASS, decayed(WORSE * CLASS, WORSE * CLASS)]),
    ({"nms": "none"}, [BETTER, WORSE]),
    ({"nms": "hard"}, [BETTER]),
    ({"nms": "soft-linear"}, [BETTER, WORSE * (1 - OVERLAP)]),
    ({"nms": "soft-gaussian"}, [BETTER, decayed(WORSE, 0.5)]),
    ({"nms": "soft-gaussian", "sigma": 2.0}, [BETTER, decayed(WORSE, 2.0)]),
    ({"iou": 0.7}, [BETTER, WORSE]),
    ({"class_agnostic": False}, [BETTER, WORSE]),
    ({"max_detections": 1}, [BETTER]),
]
PRESETS: list[tuple[dict[str, Any], list[float]]] = [
    ({"preset": "article"}, [BETTER, decayed(WORSE, WORSE)]),
    ({"preset": "yolox"}, [BETTER * CLASS]),
    ({"preset": "yolox", "nms": "none", "score_by": "objectness"}, [BETTER, WORSE]),
]
FORMS = pytest.mark.parametrize("send", [as_query, as_fields, as_json])


@pytest.fixture(scope="module")
def client() -> Iterator[TestClient]:
    with serving(OverlappingEngine(), confidence=CONFIDENCE) as client:
        yield client


def scores_of(response: Any) -> list[float]:
    return [found["score"] for found in boxes(response)[0]]


@pytest.mark.parametrize(("options", "scores"), CASES + PRESETS, ids=str)
@FORMS
def test_an_option_of_a_request_changes_its_answer(
    client: TestClient, send: Any, options: dict[str, Any], scores: list[float]
) -> None:
    assert scores_of(send(client, options)) == pytest.approx(scores, abs=1e-5)


@pytest.mark.parametrize(("options", "scores"), CASES, ids=str)
def test_a_setting_is_the_option_of_requests_without_one(
    options: dict[str, Any], scores: list[float]
) -> None:
    with serving(OverlappingEngine(), confidence=CONFIDENCE, **options) as client:
        assert scores_of(as_query(client, {})) == pytest.approx(scores, abs=1e-5)


def test_only_the_most_confident_candidates_enter_suppression() -> None:
    with serving(OverlappingEngine(), confidence=CONFIDENCE, max_candidates=1) as client:
        assert scores_of(as_query(client, {"nms": "none"})) == pytest.approx([BETTER], abs=1e-5)


@FORMS
def test_a_deadline_in_any_form_ends_the_request(send: Any) -> None:
    engine = FakeEngine()
    with ThreadPoolExecutor(1) as pool, serving(engine, request_timeout_ms=60_000) as client:
        engine.gate.clear()
        answer = pool.submit(send, client, {"timeout_ms": 50})
        problem(answer.result(timeout=10), 504, "deadline-passed")


@FORMS
def test_no_form_allows_a_deadline_beyond_the_server_s(send: Any) -> None:
    with serving(request_timeout_ms=1000) as client:
        detail = problem(send(client, {"timeout_ms": 1001}), 422, "invalid-option")
        assert "timeout_ms may be at most 1000" in detail
