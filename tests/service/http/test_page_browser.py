"""The page and the documentation in a real Chromium, with the embedded model behind them."""

import base64
import io
import json
import subprocess
from collections.abc import Iterator
from concurrent.futures import ThreadPoolExecutor
from pathlib import Path
from typing import Any

import numpy as np
import pytest
from PIL import Image
from playwright.sync_api import Browser, Page, expect

from service.core.contract import Recommended
from service.core.decode import Detections
from service.core.suppress import DetectionOptions, suppress
from service.http.page.static import ABOUT
from support.browser import HAND_OVER, chromium, page_of
from support.model_files import NAMES
from support.project import ROOT
from support.repositories import write_version
from support.servers import Server

pytestmark = pytest.mark.heavy

PHOTO = ROOT / "examples" / "parcel.jpg"
KEY = "correct-horse"
SHAPES = ("circle", "square", "star")
BOUND = ("--max-body-bytes", "1000000")


@pytest.fixture(name="servers", scope="module")
def _servers() -> Iterator[tuple[Server, Server]]:
    """A server that anybody may use, and one with an API key."""
    with ThreadPoolExecutor() as pool:
        starts = [pool.submit(Server, *flags) for flags in (BOUND, ("--api-key", KEY))]
    free, keyed = (start.result() for start in starts)
    yield free, keyed
    free.close()
    keyed.close()


@pytest.fixture(name="browser", scope="module")
def _browser(tmp_path_factory: pytest.TempPathFactory) -> Iterator[Browser]:
    film = tmp_path_factory.mktemp("camera") / "parcel.mjpeg"
    film.write_bytes(PHOTO.read_bytes() * 2)
    with chromium(film) as browser:
        yield browser


@pytest.fixture(name="page")
def _page(browser: Browser, servers: tuple[Server, Server]) -> Iterator[Page]:
    with page_of(browser, servers[0].url, permissions=["camera"]) as page:
        expect(page.get_by_role("form", name="Settings")).to_be_visible()
        yield page


@pytest.fixture(name="locked")
def _locked(browser: Browser, servers: tuple[Server, Server]) -> Iterator[Page]:
    with page_of(browser, servers[1].url) as page:
        yield page


def hand_over(page: Page, kind: str, content: bytes, name: str, media_type: str) -> None:
    page.evaluate(HAND_OVER, [kind, name, media_type, base64.b64encode(content).decode()])


def opened(page: Page) -> Page:
    """The page with the photo and the server's answer to it."""
    hand_over(page, "drop", PHOTO.read_bytes(), "parcel.jpg", "image/jpeg")
    expect(page.locator("#source")).to_have_text("as the server answered")
    return page


def rows(page: Page) -> Any:
    return page.locator("#boxes tbody tr")


def answered(server: Server, query: str = "") -> list[dict[str, Any]]:
    headers = {"Content-Type": "image/jpeg"}
    answer = server.client.post(f"/detect{query}", content=PHOTO.read_bytes(), headers=headers)
    detections: list[dict[str, Any]] = answer.json()["results"][0]["detections"]
    return detections


@pytest.fixture(name="several", scope="module")
def _several(tmp_path_factory: pytest.TempPathFactory) -> Iterator[Server]:
    """A server of two models with classes of their own; `shapes` has two versions."""
    folder = tmp_path_factory.mktemp("models")
    write_version(folder, "colours", "1")
    write_version(folder, "shapes", "4", names=SHAPES, logit=-6.0)
    write_version(folder, "shapes", "5", names=SHAPES, recommended=Recommended(confidence=0.9))
    (folder / "shapes" / "traffic.json").write_text('{"versions": {"4": 1, "5": 3}}')
    server = Server("--models", str(folder), "--default-model", "shapes")
    yield server
    server.close()


def test_a_model_and_a_version_are_chosen_where_there_are_several(
    browser: Browser, several: Server
) -> None:
    with page_of(browser, several.url) as page:
        choice = page.get_by_role("combobox", name="Model", exact=True)
        expect(choice).to_have_value("shapes, version 5")
        assert choice.get_by_role("option").all_inner_texts() == [
            "colours, version 1",
            "shapes, version 4",
            "shapes, version 5",
        ]
        expect(page.locator("#confidence-value")).to_have_text("0.90")
        expect(page.locator("#classes .name")).to_have_text(list(SHAPES))
        opened(page)
        assert shown_model(page) == {"name": "shapes", "version": "5"}
        choice.focus()
        page.keyboard.press("Home")
        expect(page.get_by_role("status")).to_contain_text("blue")
        expect(page.locator("#classes .name")).to_have_text(list(NAMES))
        expect(page.locator("#confidence-value")).to_have_text("0.50")
        assert shown_model(page) == {"name": "colours", "version": "1"}
        expect(rows(page)).to_have_count(len(answered(several, "?model=colours")))


def test_the_chosen_model_is_in_every_request_and_in_the_commands(
    browser: Browser, several: Server, tmp_path: Path
) -> None:
    (tmp_path / "parcel.jpg").write_bytes(PHOTO.read_bytes())
    with page_of(browser, several.url) as page:
        opened(page)
        with page.expect_response("**/detect?model=shapes&version=4"):
            page.get_by_label("Model", exact=True).select_option("shapes, version 4")
        expect(page.locator("#source")).to_have_text("as the server answered")
        with page.expect_response("**/detect?model=shapes&version=4&confidence=0.01&nms=none**"):
            page.get_by_label("Confidence").focus()
        page.get_by_label("Confidence").fill("0.3")
        address = f"{several.url}/detect?model=shapes&version=4&confidence=0.3"
        expect(page.locator("#python")).to_contain_text(f'"{address}"')
        command = str(page.locator("#curl").text_content())
        assert run_shell(command, tmp_path) == answered(several, address.partition("/detect")[2])


def test_a_model_that_went_away_is_told_and_the_one_before_serves_on(
    browser: Browser, several: Server
) -> None:
    with page_of(browser, several.url) as page:
        opened(page)
        page.route("**/model?model=colours**", lambda route: route.fulfill(status=404, body="{}"))
        choice = page.get_by_label("Model", exact=True)
        choice.select_option("colours, version 1")
        expect(page.locator("#problem")).to_contain_text("404")
        expect(choice).to_have_value("shapes, version 5")
        expect(page.locator("#classes .name")).to_have_text(list(SHAPES))


def test_one_model_leaves_nothing_to_choose(page: Page) -> None:
    expect(page.locator("#model")).to_contain_text("barcodes, version")
    expect(page.locator("#model-choice")).to_be_hidden()
    assert "model=" not in str(page.locator("#curl").text_content())


def test_each_box_is_listed_with_its_parts_of_the_score(
    page: Page, servers: tuple[Server, Server]
) -> None:
    opened(page)
    best = answered(servers[0])[0]
    expect(page.locator("#boxes thead th")).to_have_text(
        ["Class", "Score", "Objectness", "Class score", "x1", "y1", "x2", "y2"]
    )
    parts = [f"{best[name]:.3f}" for name in ("score", "objectness", "class_score")]
    assert rows(page).first.locator("td").all_inner_texts()[:3] == parts


def shown_model(page: Page) -> dict[str, str]:
    """The model that made the answer on the page."""
    model = json.loads(str(page.locator("#json").text_content()))["model"]
    return {name: model[name] for name in ("name", "version")}


@pytest.mark.parametrize("kind", ["drop", "paste"])
def test_a_photo_that_is_dropped_or_pasted_is_shown_with_its_boxes(page: Page, kind: str) -> None:
    hand_over(page, kind, PHOTO.read_bytes(), "parcel.jpg", "image/jpeg")
    expect(rows(page)).to_have_count(3)
    expect(page.locator("#overlay .frame")).to_have_count(3)
    for name in ("qr_code", "pdf417", "linear"):
        expect(rows(page).filter(has_text=name)).to_have_count(1)
    picture = page.get_by_role("img", name="parcel.jpg: 1 qr_code, 1 pdf417, 1 linear")
    expect(picture).to_be_visible()
    expect(page.get_by_role("status")).to_contain_text("3 objects")
    photo, box = picture.bounding_box(), page.locator("#overlay .frame").last.bounding_box()
    assert photo is not None
    assert box is not None
    # The best box lies on the screen where it lies in the photo of 800 x 600: x1 is 513.1.
    assert (box["x"] - photo["x"]) / photo["width"] == pytest.approx(513.1 / 800, abs=0.01)


def test_json_curl_and_python_show_the_same_request(
    page: Page, servers: tuple[Server, Server], tmp_path: Path
) -> None:
    opened(page)
    page.get_by_role("tab", name="JSON").click()
    shown = json.loads(page.get_by_role("tabpanel").inner_text().removeprefix("Copy"))
    assert shown["results"][0]["detections"] == answered(servers[0])
    page.get_by_label("Confidence").fill("0.9")
    page.get_by_role("tab", name="Python").click()
    expect(page.locator("#python")).to_contain_text('detect?confidence=0.9"')
    compile(page.locator("#python").inner_text(), "shown", "exec")
    (tmp_path / "parcel.jpg").write_bytes(PHOTO.read_bytes())
    page.get_by_role("tab", name="curl").click()
    assert len(run_shell(page.locator("#curl").inner_text(), tmp_path)) == 1


def run_shell(command: str, folder: Path) -> list[Any]:
    """The detections that a command prints."""
    command = command.replace("curl ", "curl -sS ")
    done = subprocess.run(
        ["sh", "-c", command], cwd=folder, capture_output=True, check=False, timeout=30
    )
    if done.returncode == 127:
        pytest.skip("curl is not installed")
    found: list[Any] = json.loads(done.stdout)["results"][0]["detections"]
    return found


def test_sliders_act_at_once_and_then_the_server_is_asked(
    page: Page, servers: tuple[Server, Server]
) -> None:
    opened(page)
    held: list[Any] = []
    with page.expect_response("**/detect?confidence=0.01&nms=none**"):
        page.get_by_label("Confidence").focus()  # the candidates are fetched
    page.route("**/detect?confidence=0.83", lambda route, _: held.append(route))
    page.get_by_label("Confidence").fill("0.83")
    expect(page.locator("#source")).to_contain_text("preview from")
    expect(rows(page)).to_have_count(2)
    while not held:
        page.wait_for_timeout(20)
    held[0].continue_()
    expect(page.locator("#source")).to_have_text("as the server answered")
    expect(rows(page)).to_have_count(2)
    page.get_by_label("Confidence").fill("0.05")
    page.get_by_label("Overlap", exact=True).fill("1")
    expect(page.locator("#source")).to_have_text("as the server answered")
    expect(rows(page)).to_have_count(len(answered(servers[0], "?confidence=0.05&iou=1")))
    assert rows(page).count() > 5, "no box is pruned"


def test_suppression_on_the_page_is_that_of_the_server(page: Page) -> None:
    rng = np.random.default_rng(3)
    corners = rng.uniform(0, 100, (60, 2)).astype(np.float32)
    boxes = np.concatenate([corners, corners + rng.uniform(20, 60, (60, 2))], axis=1)
    scores = np.sort(rng.uniform(0.2, 1, 60).astype(np.float32))[::-1].copy()
    class_ids = rng.integers(0, 3, 60)
    found = Detections(boxes.astype(np.float32), scores, scores, class_ids, scores)
    candidates = [
        {"box": dict(zip(("x1", "y1", "x2", "y2"), box, strict=True)), "score": s, "class_id": c}
        for box, s, c in zip(boxes.tolist(), scores.tolist(), class_ids.tolist(), strict=True)
    ]
    cases = [
        {"nms": nms, "class_agnostic": agnostic, "confidence": 0.2, "iou": 0.3, "sigma": 0.4}
        | {"max_detections": 40}
        for nms in ("soft-mean", "soft-gaussian", "soft-linear", "hard", "none")
        for agnostic in (True, False)
    ]
    script = """async ([candidates, cases]) => {
      const { suppress } = await import("./page/suppress.js");
      return cases.map((options) => suppress(candidates, { ...options, classes: null }));
    }"""
    ours = page.evaluate(script, [candidates, cases])
    for options, kept in zip(cases, ours, strict=True):
        theirs = suppress(found, DetectionOptions(**options))
        assert [each["class_id"] for each in kept] == theirs.class_ids.tolist(), options
        np.testing.assert_allclose([each["score"] for each in kept], theirs.scores, atol=1e-5)


def test_classes_are_switched_off_and_on(page: Page) -> None:
    opened(page)
    page.get_by_role("checkbox", name="linear").uncheck()
    expect(rows(page)).to_have_count(2)
    expect(page.locator("#source")).to_have_text("as the server answered")
    page.get_by_role("tab", name="curl").click()
    expect(page.locator("#curl")).to_contain_text("classes=qr_code,data_matrix,aztec,pdf417")
    page.get_by_role("tab", name="Boxes").click()
    page.get_by_role("button", name="None").click()
    expect(page.locator("#source")).to_have_text("every class is off")
    expect(rows(page)).to_have_count(0)
    page.get_by_role("button", name="All").click()
    expect(rows(page)).to_have_count(3)


def test_the_camera_is_live_with_boxes_until_it_is_stopped(page: Page) -> None:
    page.get_by_role("button", name="Use the camera").first.click()
    expect(page.locator("#overlay .frame").first).to_be_visible()
    expect(page.locator("#source")).to_contain_text("frames a second")
    expect(page.locator("#timing")).to_contain_text("Camera to screen")
    for stage in ("Decode", "Queue", "Inference", "Postprocess", "Network and rest"):
        expect(page.locator("#timing")).to_contain_text(stage)
    page.get_by_role("button", name="Stop the camera").click()
    with pytest.raises(Exception, match="Timeout"), page.expect_request("**/detect", timeout=700):
        pass


def test_the_picture_is_downloaded_as_the_server_draws_it(page: Page) -> None:
    opened(page)
    with page.expect_download() as started:
        page.get_by_role("button", name="Download the picture").click()
    assert started.value.suggested_filename == "parcel-detected.jpg"
    with Image.open(started.value.path()) as picture, Image.open(PHOTO) as photo:
        assert (picture.format, picture.size) == ("JPEG", (800, 600))
        assert np.abs(np.asarray(picture).astype(int) - np.asarray(photo)).max() > 100


@pytest.mark.parametrize(
    ("content", "name", "media_type", "says"),
    [
        (b"\xff\xd8\xff damaged", "damaged.jpg", "image/jpeg", "decode"),
        (b"some text", "notes.txt", "text/plain", "“notes.txt” is not an image"),
        (bytes(1_100_000), "huge.png", "image/png", "at most 1.0 MB"),
    ],
    ids=["a damaged photo", "a text", "a file over the limit"],
)
def test_what_is_wrong_is_said(
    page: Page, content: bytes, name: str, media_type: str, says: str
) -> None:
    hand_over(page, "drop", content, name, media_type)
    expect(page.locator("#problem")).to_contain_text(says)
    expect(page.locator("#problem")).to_have_attribute("role", "alert")
    opened(page)
    expect(page.locator("#problem")).to_be_hidden()


def test_a_server_that_does_not_answer_is_told_from_one_that_refuses(page: Page) -> None:
    page.route("**/detect*", lambda route: route.abort())
    hand_over(page, "drop", PHOTO.read_bytes(), "parcel.jpg", "image/jpeg")
    expect(page.locator("#problem")).to_contain_text("The server does not answer")


def test_a_key_is_asked_for_and_forgotten_by_a_reload(locked: Page) -> None:
    dialog = locked.get_by_role("dialog", name="This server asks for an API key")
    expect(dialog.get_by_label("API key")).to_be_focused()
    dialog.get_by_label("API key").fill("wrong")
    locked.keyboard.press("Enter")
    expect(dialog.get_by_role("alert")).to_have_text("The server does not accept this key.")
    dialog.get_by_label("API key").fill(KEY)
    locked.keyboard.press("Enter")
    expect(dialog).to_be_hidden()
    expect(locked.locator("#model")).to_contain_text("barcodes, version")
    expect(rows(opened(locked))).to_have_count(3)
    assert "X-API-Key: $YOLOX_API_KEY" in str(locked.locator("#curl").text_content())
    assert KEY not in locked.content()
    assert locked.evaluate("sessionStorage.length + localStorage.length") == 0
    locked.reload()
    expect(dialog).to_be_visible()


def test_a_key_is_kept_for_the_tab_where_the_user_wants_it(locked: Page) -> None:
    dialog = locked.get_by_role("dialog")
    dialog.get_by_label("API key").fill(KEY)
    dialog.get_by_label("Keep it until this tab is closed").check()
    dialog.get_by_role("button", name="Use this key").click()
    expect(locked.locator("#model")).to_contain_text("barcodes, version")
    locked.reload()
    expect(locked.locator("#model")).to_contain_text("barcodes, version")
    expect(dialog).to_be_hidden()
    assert KEY not in locked.url


def test_a_dialog_that_is_closed_without_a_key_comes_back_when_one_is_needed(locked: Page) -> None:
    dialog = locked.get_by_role("dialog")
    expect(dialog).to_be_visible()
    locked.keyboard.press("Escape")
    expect(dialog).to_be_hidden()
    hand_over(locked, "drop", PHOTO.read_bytes(), "parcel.jpg", "image/jpeg")
    dialog.get_by_label("API key").fill(KEY)
    locked.keyboard.press("Enter")
    expect(rows(locked)).to_have_count(3)


def test_the_page_is_used_with_the_keyboard_alone(page: Page) -> None:
    page.keyboard.press("Tab")
    expect(page.get_by_role("link", name="Skip to the photo")).to_be_focused()
    opened(page)
    page.get_by_role("slider", name="Confidence").focus()
    page.keyboard.press("ArrowRight")
    expect(page.locator("#confidence-value")).to_have_text("0.41")
    page.get_by_role("tab", name="Boxes").focus()
    page.keyboard.press("ArrowRight")
    expect(page.get_by_role("tab", name="JSON")).to_be_focused()
    expect(page.get_by_role("tabpanel", name="JSON")).to_be_visible()
    page.keyboard.press("ArrowLeft")
    expect(rows(page)).to_have_count(3)
    rows(page).first.focus()
    page.keyboard.press("ArrowDown")
    expect(rows(page).nth(1)).to_be_focused()
    expect(page.locator("#overlay .pointed")).to_have_attribute("data-index", "1")


def test_a_phone_shows_all_without_scrolling_sideways(
    browser: Browser, servers: tuple[Server, Server]
) -> None:
    with page_of(browser, servers[0].url, viewport={"width": 390, "height": 844}) as page:
        opened(page)
        assert page.evaluate("document.documentElement.scrollWidth") == 390


def test_dark_and_light_follow_the_system(page: Page) -> None:
    shades = {}
    for scheme in ("light", "dark"):
        page.emulate_media(color_scheme=scheme)
        picture = Image.open(io.BytesIO(page.screenshot()))
        shades[scheme] = np.asarray(picture.convert("L"))[5, 5]
    assert shades["light"] > 230
    assert shades["dark"] < 40


def test_the_documentation_tries_a_request_and_shows_the_picture(
    browser: Browser, servers: tuple[Server, Server]
) -> None:
    with page_of(browser, f"{servers[0].url}/docs") as page:
        operation = page.locator(".opblock-post").filter(has_text="/detect").first
        operation.locator(".opblock-summary").click()
        body = operation.locator(".opblock-section-request-body select").first
        body.select_option("application/json")
        kinds = operation.locator(".responses-table:not(.live-responses-table) select").first
        kinds.select_option("image/png")
        operation.get_by_role("button", name="Execute").click()
        expect(operation.locator(".live-responses-table img")).to_be_visible()
        for kind in ("image/*", "multipart/form-data"):
            body.select_option(kind)
            operation.locator("input[type=file]").set_input_files(PHOTO)
            kinds.select_option("application/json")
            operation.get_by_role("button", name="Execute").click()
            live = operation.locator(".live-responses-table")
            expect(live).to_contain_text("pdf417" if kind == "image/*" else "parcel.jpg")


def test_the_commands_of_the_documentation_do_what_they_say(
    servers: tuple[Server, Server], tmp_path: Path
) -> None:
    (tmp_path / "parcel.jpg").write_bytes(PHOTO.read_bytes())
    block = ABOUT.partition("```sh\n")[2].partition("```")[0].replace("\\\n", " ")
    *for_json, for_picture = block.replace("http://127.0.0.1:8000", servers[0].url).splitlines()
    for command in for_json:
        assert len(run_shell(command, tmp_path)) >= 3, command
    subprocess.run(["sh", "-c", for_picture], cwd=tmp_path, check=True, capture_output=True)
    with Image.open(tmp_path / "found.jpg") as picture:
        assert picture.size == (800, 600)


def test_a_file_that_is_no_image_has_neither_count_nor_picture(page: Page) -> None:
    opened(page)
    hand_over(page, "drop", b"no image at all", "notes.jpg", "image/jpeg")
    expect(page.locator("#problem")).to_contain_text("not an image")
    expect(page.locator("#source")).to_have_text("no answer")
    expect(page.locator("#summary")).to_have_text("")
    expect(page.locator("#unshown")).to_be_visible()
    expect(page.get_by_text("The server can read it.")).to_be_hidden()
    expect(page.get_by_role("button", name="Download the picture")).to_be_hidden()
    expect(page.locator("#json")).to_have_text("null")
    expect(page.locator("#no-boxes")).to_have_text("The boxes of your photo will be listed here.")


def test_a_photo_that_the_server_alone_can_read_is_told_after_its_answer(page: Page) -> None:
    tiff = io.BytesIO()
    Image.open(PHOTO).resize((400, 300)).save(tiff, "TIFF")
    hand_over(page, "drop", tiff.getvalue(), "parcel.tiff", "image/tiff")
    expect(page.locator("#source")).to_have_text("as the server answered")
    expect(page.get_by_text("The server can read it.")).to_be_visible()
    expect(page.get_by_role("button", name="Download the picture")).to_be_visible()
    opened(page)
    expect(page.locator("#unshown")).to_be_hidden()
