"""A repository in the server: what answers, what changes, and what stays when a file is bad."""

import asyncio
import time
from collections.abc import Iterator, Mapping, Sequence
from functools import partial
from pathlib import Path
from typing import Any

import pytest
from starlette.testclient import TestClient
from structlog.testing import capture_logs

from service.errors import ModelInUseError, ModelLoadError, ModelNotFoundError, StartupError
from service.http.app import create_app
from service.settings import Settings
from support.client import as_raw, metric, problem
from support.repositories import (
    remove,
    write_apart,
    write_garbage,
    write_model,
    write_version,
)
from support.served_models import PHOTO, Served, repository, until


def test_requests_choose_a_model_and_a_version_and_the_newest_is_the_default(
    tmp_path: Path,
) -> None:
    for version in ("9", "10"):
        write_version(tmp_path, "cats", version)
    write_version(tmp_path, "dogs", "1")
    with repository(tmp_path) as served:
        assert served.answer() == ("cats", "10")
        assert served.answer("?model=dogs") == ("dogs", "1")
        assert served.answer("?model=cats&version=9") == ("cats", "9")
        assert served.answer("?version=9") == ("cats", "9")
        form = {"images": ("a.png", PHOTO)}
        answer = served.client.post("/detect", files=form, data={"model": "dogs"}).json()
        assert answer["model"]["name"] == "dogs"
        assert served.client.get("/model?model=dogs").json()["contract"]["name"] == "tiny"


def test_an_unknown_model_or_version_is_404_and_names_what_there_is(tmp_path: Path) -> None:
    write_version(tmp_path, "cats", "1")
    write_version(tmp_path, "dogs", "1")
    with repository(tmp_path) as served:
        detail = problem(as_raw(served.client, PHOTO, "?model=cows"), 404, "model-not-found")
        assert "cats, dogs" in detail
        detail = problem(as_raw(served.client, PHOTO, "?version=7"), 404, "model-not-found")
        assert "no version '7'" in detail


def test_a_setting_says_which_model_is_the_default(tmp_path: Path) -> None:
    write_version(tmp_path, "cats", "1")
    write_version(tmp_path, "dogs", "1")
    with repository(tmp_path, default_model="dogs") as served:
        assert served.answer() == ("dogs", "1")
    with pytest.raises(StartupError, match="there is no model 'cows'"):
        create_app(Settings(models=tmp_path, default_model="cows", device="cpu"))


def test_a_repository_without_a_model_is_told_with_its_layout(tmp_path: Path) -> None:
    with pytest.raises(StartupError, match=r"NAME/1/model\.onnx"):
        create_app(Settings(models=tmp_path, device="cpu"))


def refuse_to_list(monkeypatch: pytest.MonkeyPatch, *names: str) -> None:
    """Have folders of these names be as those of another user are, also for root."""
    listed = Path.iterdir

    def iterdir(folder: Path) -> Iterator[Path]:
        if folder.name in names:
            raise PermissionError(13, "Permission denied")
        return listed(folder)

    monkeypatch.setattr(Path, "iterdir", iterdir)


def left_out(lines: Sequence[Mapping[str, Any]]) -> list[str]:
    return [str(line["reason"]) for line in lines if "is left out" in line["event"]]


def test_a_folder_that_cannot_be_read_is_left_out_with_one_line(
    tmp_path: Path, monkeypatch: pytest.MonkeyPatch
) -> None:
    """A volume has `lost+found`, which only root may read."""
    write_version(tmp_path, "cats", "1")
    (tmp_path / "lost+found").mkdir()
    refuse_to_list(monkeypatch, "lost+found")
    with capture_logs() as lines, repository(tmp_path) as served:
        served.call("refresh")
        assert served.answer() == ("cats", "1")
        assert served.states() == {("cats", "1"): "READY"}
    assert not [line for line in lines if line["event"].startswith("the models stay")]
    assert left_out(lines) == [
        f"{tmp_path}/lost+found cannot be read (Permission denied); it is left out"
    ]


def test_a_served_model_stays_while_its_folder_cannot_be_read(
    tmp_path: Path, monkeypatch: pytest.MonkeyPatch
) -> None:
    write_version(tmp_path, "cats", "1")
    for version in ("1", "2"):
        write_version(tmp_path, "dogs", version)
    (tmp_path / "dogs" / "traffic.json").write_text('{"versions": {"1": 1}}')
    with repository(tmp_path) as served:
        with monkeypatch.context() as patched, capture_logs() as lines:
            refuse_to_list(patched, "dogs")
            served.call("refresh")
            served.call("refresh")
            assert served.answer("?model=dogs") == ("dogs", "1")
            assert served.states()["dogs", "2"] == "ON_DEMAND"
        assert left_out(lines) == [
            f"{tmp_path}/dogs cannot be read (Permission denied); what was loaded from it stays"
        ]
        remove(tmp_path, "dogs")
        served.call("refresh")
        problem(as_raw(served.client, PHOTO, "?model=dogs"), 404, "model-not-found")


def test_a_mistake_in_the_layout_is_told_once_until_it_is_mended(tmp_path: Path) -> None:
    write_version(tmp_path, "cats", "1")
    (tmp_path / "empty").mkdir()
    told = f"{tmp_path}/empty holds no version; put the model at empty/1/model.onnx"
    with capture_logs() as lines, repository(tmp_path) as served:
        served.call("refresh")
        assert left_out(lines) == [told]
        remove(tmp_path, "empty")
        served.call("refresh")
        (tmp_path / "empty").mkdir()
        served.call("refresh")
        assert left_out(lines) == [told, told]


def test_a_file_is_served_beside_a_repository_as_the_default(tmp_path: Path) -> None:
    write_model(tmp_path / "one.onnx")
    write_version(tmp_path / "many", "dogs", "1")
    with repository(tmp_path / "many", model=tmp_path / "one.onnx") as served:
        assert served.answer() == ("tiny", "1")
        assert served.answer("?model=dogs") == ("dogs", "1")


def test_a_version_that_is_deleted_while_it_loads_costs_only_those_who_ask_for_it(
    tmp_path: Path, monkeypatch: pytest.MonkeyPatch
) -> None:
    older = write_version(tmp_path, "cats", "1")
    write_version(tmp_path, "cats", "2")

    def delete(_: object, file: str) -> None:
        Path(file).unlink()

    with repository(tmp_path) as served:
        monkeypatch.setattr("service.models.stock.prove", delete)
        detail = problem(as_raw(served.client, PHOTO, "?version=1"), 503, "model-not-available")
        assert f"cannot read the model file {older}: No such file" in detail
        served.call("refresh")
        problem(as_raw(served.client, PHOTO, "?version=1"), 404, "model-not-found")
        assert served.answer() == ("cats", "2")


def test_a_new_version_takes_over_and_the_old_one_s_series_go(tmp_path: Path) -> None:
    write_version(tmp_path, "cats", "1")
    with repository(tmp_path) as served:
        assert served.answer() == ("cats", "1")
        assert served.told() == {("cats", "1")}
        write_version(tmp_path, "cats", "2")
        served.call("refresh")
        assert served.answer() == ("cats", "2")
        assert served.states() == {("cats", "1"): "ON_DEMAND", ("cats", "2"): "READY"}
        assert served.reason("cats", "1") == "loaded when a request asks for it"
        until(lambda: served.told() == {("cats", "2")})


def test_the_old_version_is_freed_once_its_last_request_has_ended(tmp_path: Path) -> None:
    write_version(tmp_path, "cats", "1")
    with repository(tmp_path) as served:
        held = [served.models.pick()]
        write_version(tmp_path, "cats", "2")
        served.call("refresh")
        assert served.answer() == ("cats", "2")
        time.sleep(0.3)
        assert ("cats", "1") in served.told()
        held.clear()
        until(lambda: served.told() == {("cats", "2")})


def test_a_removed_model_and_its_series_go(tmp_path: Path) -> None:
    write_version(tmp_path, "cats", "1")
    write_version(tmp_path, "dogs", "1")
    with repository(tmp_path) as served:
        assert served.answer("?model=dogs") == ("dogs", "1")
        assert metric(served.client, 'yolox_images_total{model="dogs",outcome="ok"}') == 1
        remove(tmp_path, "dogs")
        served.call("refresh")
        problem(as_raw(served.client, PHOTO, "?model=dogs"), 404, "model-not-found")
        until(lambda: served.told() == {("cats", "1")})


@pytest.mark.parametrize("kind", ["no model", "not finite"])
def test_a_bad_version_leaves_the_old_one_serving_and_is_told(tmp_path: Path, kind: str) -> None:
    write_version(tmp_path, "cats", "1")
    with repository(tmp_path) as served:
        if kind == "no model":
            write_garbage(tmp_path, "cats", "2")
        else:
            write_version(tmp_path, "cats", "2", broken=True)
        served.call("refresh")
        assert served.answer() == ("cats", "1")
        assert served.states()["cats", "2"] == "UNAVAILABLE"
        assert ("cannot be loaded" if kind == "no model" else "NaN") in served.reason("cats", "2")
        failed = 'yolox_model_loads_total{model="cats",outcome="failed",version="2"}'
        assert metric(served.client, failed) == 1
        served.call("refresh")
        assert metric(served.client, failed) == 1  # the same file is not tried again
        problem(as_raw(served.client, PHOTO, "?version=2"), 503, "model-not-available")
        write_version(tmp_path, "cats", "2")
        served.call("refresh")
        assert served.answer() == ("cats", "2")


def test_a_start_falls_back_to_the_newest_version_that_can_be_served(tmp_path: Path) -> None:
    write_version(tmp_path, "cats", "1")
    write_garbage(tmp_path, "cats", "2")
    with repository(tmp_path) as served:
        assert served.answer() == ("cats", "1")


def test_a_replaced_file_is_loaded_and_a_touched_one_is_not(tmp_path: Path) -> None:
    path = write_version(tmp_path, "cats", "1")
    with repository(tmp_path) as served:
        before = served.models.pick()
        path.touch()
        served.call("refresh")
        assert served.models.pick() is before
        write_version(tmp_path, "cats", "1", logit=-3)
        served.call("refresh")
        assert served.models.pick() is not before
        assert served.answer() == ("cats", "1")


def test_a_replaced_single_file_is_loaded_by_its_new_name_and_a_bad_one_is_not(
    tmp_path: Path,
) -> None:
    path = tmp_path / "one.onnx"
    write_model(path)
    app = create_app(Settings(model=path, device="cpu"))
    with TestClient(app) as client:
        served = Served(client)
        write_model(path, contract_version="2", names=("red", "green", "cyan"))
        served.call("refresh")
        assert served.answer() == ("tiny", "2")
        assert served.states() == {("tiny", "2"): "READY"}
        until(lambda: served.told() == {("tiny", "2")})
        path.write_bytes(b"half a file")
        served.call("refresh")
        assert served.answer() == ("tiny", "2")
        assert "cannot be loaded" in served.reason("tiny", "2")


@pytest.mark.parametrize("changed_by", ["polling", "SIGHUP", "call"])
def test_weights_beside_a_single_file_are_noticed_when_they_alone_change(
    tmp_path: Path, changed_by: str
) -> None:
    path = tmp_path / "one.onnx"
    write_apart(path, logit=-5.0)
    settings = Settings(model=path, device="cpu", model_poll_s=0.05 * (changed_by == "polling"))
    with TestClient(create_app(settings)) as client:
        served = Served(client)
        before = served.digest()
        write_apart(path, logit=-3.0, weights_only=True)
        if changed_by == "SIGHUP":
            served.call("refresh")
        elif changed_by == "call":
            served.call("load", "tiny")
        until(lambda: served.digest() != before)
        path.with_name("weights.bin").unlink()
        served.call("refresh")
        assert served.answer() == ("tiny", "1")
        assert "cannot be loaded" in served.reason("tiny", "1")
        write_apart(path, logit=-5.0, weights_only=True)
        served.call("refresh")
        assert served.digest() == before
        assert served.reason("tiny", "1") == ""


def test_a_failure_is_forgotten_once_the_file_is_again_what_is_loaded(tmp_path: Path) -> None:
    path = write_version(tmp_path, "cats", "1")
    with repository(tmp_path) as served:
        before, good = served.models.pick(), path.read_bytes()
        for is_kept_aside in (False, True):
            aside = path.replace(path.with_name("aside"))
            path.write_bytes(b"<html>404</html>")
            served.call("refresh")
            assert "cannot be loaded" in served.reason("cats", "1")
            if is_kept_aside:
                aside.replace(path)
            else:
                path.write_bytes(good)
            served.call("refresh")
            assert served.reason("cats", "1") == ""
            assert not served.models._stock.failed
        assert served.models.pick() is before


def test_the_series_of_a_version_that_failed_goes_with_its_files(tmp_path: Path) -> None:
    write_version(tmp_path, "cats", "1")
    write_garbage(tmp_path, "cats", "2")
    with repository(tmp_path) as served:
        assert served.told() == {("cats", "1"), ("cats", "2")}
        remove(tmp_path, "cats", "2")
        served.call("refresh")
        assert served.told() == {("cats", "1")}


def test_a_bad_older_version_is_tried_again_once_its_file_is_another(tmp_path: Path) -> None:
    write_garbage(tmp_path, "cats", "1")
    write_version(tmp_path, "cats", "2")
    with repository(tmp_path) as served:
        problem(as_raw(served.client, PHOTO, "?version=1"), 503, "model-not-available")
        assert served.states()["cats", "1"] == "UNAVAILABLE"
        write_version(tmp_path, "cats", "1")
        assert served.states()["cats", "1"] == "ON_DEMAND"
        assert served.answer("?version=1") == ("cats", "1")


def test_other_things_in_a_version_s_folder_do_not_matter(tmp_path: Path) -> None:
    path = write_version(tmp_path, "cats", "1")
    (path.parent / ".#model.onnx").symlink_to("nobody@nowhere")  # an editor's lock
    with repository(tmp_path) as served:
        write_version(tmp_path, "cats", "1", logit=-3)
        before = served.digest()
        served.call("refresh")
        assert served.digest() != before


def test_calls_load_and_unload_a_model(tmp_path: Path) -> None:
    write_version(tmp_path, "cats", "1")
    write_version(tmp_path, "dogs", "1")
    with repository(tmp_path) as served:
        served.call("unload", "dogs")
        detail = problem(as_raw(served.client, PHOTO, "?model=dogs"), 503, "model-not-available")
        assert "unloaded" in detail
        served.call("refresh")
        assert served.loaded() == {("cats", "1")}
        served.call("load", "dogs")
        assert served.answer("?model=dogs") == ("dogs", "1")
        with pytest.raises(ModelInUseError):
            served.call("unload", "cats")
        with pytest.raises(ModelNotFoundError):
            served.call("load", "cows")
        write_garbage(tmp_path, "dogs", "2")
        with pytest.raises(ModelLoadError):
            served.call("load", "dogs")
        assert served.answer("?model=dogs") == ("dogs", "1")


def test_what_was_used_least_recently_is_unloaded_and_loaded_again_on_demand(
    tmp_path: Path,
) -> None:
    for name in ("a", "b", "c"):
        write_version(tmp_path, name, "1")
    with repository(tmp_path, max_loaded_models=2) as served:
        assert served.loaded() == {("a", "1"), ("b", "1")}
        assert served.states()["c", "1"] == "ON_DEMAND"
        served.answer("?model=b")
        served.answer("?model=a")
        assert served.answer("?model=c") == ("c", "1")
        assert served.loaded() == {("a", "1"), ("c", "1")}
        assert served.answer("?model=b") == ("b", "1")
        assert served.loaded() == {("b", "1"), ("c", "1")}
        assert served.client.get("/health/ready").status_code == 200
        assert served.answer() == ("a", "1")


def test_requests_that_need_a_model_wait_for_one_load_of_it(tmp_path: Path) -> None:
    write_version(tmp_path, "a", "1")
    write_version(tmp_path, "b", "1")
    with repository(tmp_path, max_loaded_models=1) as served:

        async def crowd() -> set[int]:
            found = await asyncio.gather(*(served.models.get("b") for _ in range(8)))
            return {id(each) for each in found}

        assert served.client.portal is not None
        assert len(served.client.portal.call(crowd)) == 1
        assert metric(served.client, 'yolox_model_loads_total{model="b",outcome="ok"}') == 1


@pytest.mark.parametrize(("content", "outcome"), [("good", "ok"), ("bad", "failed")])
def test_a_refresh_and_a_request_load_a_version_once(
    tmp_path: Path, content: str, outcome: str
) -> None:
    write_version(tmp_path, "a", "1")
    write_version(tmp_path, "b", "1")
    with repository(tmp_path) as served:

        async def together() -> None:
            refresh = asyncio.create_task(served.models.refresh())
            while not any(each.state == "LOADING" for each in served.models.listing()):
                await asyncio.sleep(0)
            asked = served.models.get("b", "2")
            await asyncio.gather(refresh, asked, return_exceptions=True)

        (write_version if content == "good" else write_garbage)(tmp_path, "b", "2")
        assert served.client.portal is not None
        served.client.portal.call(together)
        counted = f'yolox_model_loads_total{{model="b",outcome="{outcome}",version="2"}}'
        assert metric(served.client, counted) == 1


def test_a_load_that_begins_just_after_the_file_has_failed_does_not_try_it_again(
    tmp_path: Path,
) -> None:
    write_version(tmp_path, "a", "1")
    write_version(tmp_path, "b", "1")
    with repository(tmp_path) as served:
        write_garbage(tmp_path, "b", "2")
        assert served.client.portal is not None
        served.client.portal.call(served.models.refresh)
        file = served.models.found["b"].files["2"]
        begun_late = partial(served.models.load_on_demand, ("b", "2"), file, by_version=True)
        with pytest.raises(StartupError, match="a web page"):
            served.client.portal.call(begun_late)
        counted = 'yolox_model_loads_total{model="b",outcome="failed",version="2"}'
        assert metric(served.client, counted) == 1


def test_polling_finds_a_new_version_once_it_has_come_to_rest(tmp_path: Path) -> None:
    write_version(tmp_path, "cats", "1")
    with repository(tmp_path, model_poll_s=0.05) as served:
        write_version(tmp_path, "cats", "2")
        until(lambda: served.answer() == ("cats", "2"))


def test_a_change_of_class_names_is_said(
    tmp_path: Path, capsys: pytest.CaptureFixture[str]
) -> None:
    write_version(tmp_path, "cats", "1")
    with repository(tmp_path) as served:
        write_version(tmp_path, "cats", "2", names=("red", "green", "cyan"))
        served.call("refresh")
        assert served.answer() == ("cats", "2")
    assert "without blue; with cyan" in "".join(capsys.readouterr())
