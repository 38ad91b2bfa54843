"""The command of `make serve`, and the content of a wheel. Neither needs a network."""

import os
import re
import shutil
import subprocess
import sys
import zipfile
from fnmatch import fnmatch
from pathlib import Path

import pytest

from support.model_files import model_file
from support.onnx_models import tiny_yolox_model
from support.pictures import plain
from support.project import ROOT
from support.servers import Server

BUILT_FROM = [".gitignore", "LICENSE", "README.md", "hatch_build.py", "pyproject.toml"]

FAKE_PYTHON = """#!/bin/sh
echo "$@" >> "{log}"
case "$*" in "-m model_export fetch"*) echo "/cache/$4.onnx";; esac
"""


def commands_of_make_serve(folder: Path, **variables: str) -> list[str]:
    """The Python commands that `make serve` runs in an environment that is already installed."""
    python, log = folder / "bin" / "python", folder / "log"
    python.parent.mkdir(parents=True)
    python.write_text(FAKE_PYTHON.format(log=log))
    python.chmod(0o755)
    (folder / ".installed-serve-cpu").touch()
    environment = {key: value for key, value in os.environ.items() if not key.startswith("MAKE")}
    # As shells and package managers set it.
    environment = {
        key: environment[key] for key in environment.keys() - {"MODEL", "PORT", "DEVICE"}
    }
    environment["HOST"] = "x86_64-conda-linux-gnu"
    named = [f"{name}={value}" for name, value in variables.items()]
    command = ["make", "serve", "DEVICE=cpu", f"SERVE_VENV={folder}", *named]
    subprocess.run(command, cwd=ROOT, env=environment, check=True, capture_output=True)
    return log.read_text().splitlines()


@pytest.mark.parametrize("variables", [{}, {"MODEL": ""}], ids=["unset", "empty"])
def test_make_serve_without_a_model_fetches_nothing(
    tmp_path: Path, variables: dict[str, str]
) -> None:
    (command,) = commands_of_make_serve(tmp_path / "venv", **variables)
    assert command == "-m service --device cpu"


def test_make_serve_passes_on_what_it_is_given(tmp_path: Path) -> None:
    (command,) = commands_of_make_serve(
        tmp_path / "venv", HOST="::1", PORT="81", EXTRA="--nms hard"
    )
    assert command == "-m service --host ::1 --port 81 --device cpu --nms hard"


def test_make_serve_fetches_a_model_that_is_named(tmp_path: Path) -> None:
    fetch, serve = commands_of_make_serve(tmp_path / "venv", MODEL="yolox-nano")
    assert fetch == "-m model_export fetch yolox-nano"
    assert serve.startswith("-m service --model /cache/yolox-nano.onnx --device")


def test_make_serve_fetches_from_a_mirror_that_is_named(tmp_path: Path) -> None:
    fetch, _ = commands_of_make_serve(
        tmp_path / "venv", MODEL="nano", BASE_URL="http://127.0.0.1:1/m"
    )
    assert fetch == "-m model_export fetch nano --base-url http://127.0.0.1:1/m"


def test_bare_make_lists_what_it_can_do_and_starts_nothing() -> None:
    environment = {key: value for key, value in os.environ.items() if not key.startswith("MAKE")}
    make = [["make"], ["make", "--dry-run"]]
    shown, would_run = (
        subprocess.run(each, cwd=ROOT, env=environment, check=True, capture_output=True, text=True)
        for each in make
    )
    assert "make serve   start the server" in shown.stdout
    assert "make test    run the tests" in shown.stdout
    assert "pip" not in would_run.stdout
    assert "service" not in would_run.stdout


@pytest.mark.parametrize("path", ["model.onnx", "runs/best.onnx", "runs/model"])
def test_make_serve_takes_a_file_as_it_is(tmp_path: Path, path: str) -> None:
    (command,) = commands_of_make_serve(tmp_path / "venv", MODEL=path)
    assert command.startswith(f"-m service --model {path} --device")


def test_the_images_are_built_with_the_embedded_model_and_no_other() -> None:
    """The last line that fits decides, as in Docker."""
    lines = re.findall(r"^[^#\n].*$", (ROOT / ".dockerignore").read_text(), re.MULTILINE)

    def ignored(path: str) -> bool:
        fitting = [line for line in lines if fnmatch(path, line.removeprefix("!"))]
        return not fitting[-1].startswith("!")

    assert not ignored("service/models/barcodes.onnx")
    assert not ignored("service/engine/graphs/candidate_rows_float32.onnx")
    assert ignored("service/models/other.onnx")


@pytest.fixture(scope="module")
def installed(tmp_path_factory: pytest.TempPathFactory) -> Path:
    """A folder with what a wheel brings, built from a copy whose embedded model is a stand-in."""
    folder = tmp_path_factory.mktemp("wheel")
    copy = folder / "checkout"
    for package in ("service", "model_export", "yolox_client", "yolox_serve"):
        ignored = shutil.ignore_patterns("__pycache__", "*.onnx")
        shutil.copytree(ROOT / package, copy / package, ignore=ignored)
    for name in BUILT_FROM:
        shutil.copy(ROOT / name, copy / name)
    graphs = Path("service", "engine", "graphs")
    shutil.copytree(ROOT / graphs, copy / graphs, dirs_exist_ok=True)
    models = copy / "service" / "models"
    models.mkdir(exist_ok=True)
    model_file(models, tiny_yolox_model()).rename(models / "barcodes.onnx")
    (models / "barcodes.md").write_text("a card")
    (models / "other.onnx").write_bytes(b"what somebody left there")
    build = [sys.executable, "-m", "hatchling", "build", "-t", "wheel", "-d", str(folder)]
    subprocess.run(build, cwd=copy, check=True, capture_output=True)
    (wheel,) = folder.glob("*.whl")
    with zipfile.ZipFile(wheel) as archive:
        archive.extractall(folder / "site")
    return folder / "site"


def test_a_wheel_carries_the_embedded_model_and_its_card_and_no_other(installed: Path) -> None:
    files = {path.name for path in (installed / "service" / "models").iterdir() if path.is_file()}
    assert {name for name in files if not name.endswith(".py")} == {"barcodes.md", "barcodes.onnx"}


def test_a_wheel_carries_the_graphs_that_the_server_runs(installed: Path) -> None:
    graphs = Path("service", "engine", "graphs")
    files = {path.name for path in (ROOT / graphs).iterdir()}
    assert {path.name for path in (installed / graphs).iterdir()} == files
    assert "candidate_rows_float32.onnx" in files


def test_a_wheel_carries_the_files_of_the_page_and_of_the_documentation(installed: Path) -> None:
    for folder in ("assets", "docs"):
        page = Path("service", "http", "page", folder)
        files = {path.name for path in (ROOT / page).iterdir()}
        assert {path.name for path in (installed / page).iterdir()} == files
        assert len(files) >= 4


def test_a_wheel_shows_the_readme_and_where_the_project_is(installed: Path) -> None:
    (metadata,) = installed.glob("*.dist-info/METADATA")
    head, _, readme = metadata.read_text(encoding="utf-8").partition("\n\n")
    assert "\nDescription-Content-Type: text/markdown" in head
    assert "\nProject-URL: " in head
    assert readme.startswith("# yolox-serve\n")


def test_an_installed_wheel_serves_the_embedded_model(
    installed: Path, monkeypatch: pytest.MonkeyPatch
) -> None:
    monkeypatch.delenv("YOLOX_MODEL", raising=False)
    # Without the current folder on the path, or it would be the checkout that serves.
    running = Server(environment={"PYTHONPATH": str(installed), "PYTHONSAFEPATH": "1"})
    try:
        headers = {"Content-Type": "image/png"}
        answer = running.client.post("/detect", content=plain(255), headers=headers).json()
        shown = [running.client.get(path).status_code for path in ("/", "/page/main.js", "/docs")]
    finally:
        running.close()
    assert answer["results"][0]["detections"]
    assert answer["model"]["name"] == "tiny"
    assert shown == [200, 200, 200]
    assert any(str(installed / "service" / "models") in line for line in running.events)


def test_the_console_command_is_not_misled_by_a_service_of_the_user(
    installed: Path, tmp_path: Path
) -> None:
    for name in ("service.py", "model_export.py", "yolox_serve.py"):
        (tmp_path / name).write_text("raise SystemExit('this is the file of the user')")
    # Installers write such a script for `[project.scripts]`.
    script = tmp_path / "bin" / "yolox-serve"
    script.parent.mkdir()
    script.write_text("import sys\nfrom yolox_serve.__main__ import main\nsys.exit(main())\n")
    environment = {**os.environ, "PYTHONPATH": str(installed), "YOLOX_DRAIN_GRACE_S": "0"}
    serve = ["serve", "--port", "0", "--device", "cpu", "--workers", "2", "--log-format", "json"]
    with subprocess.Popen(
        [sys.executable, str(script), *serve],
        cwd=tmp_path,
        env=environment,
        stderr=subprocess.PIPE,
        text=True,
    ) as process:
        assert process.stderr
        served = 0
        for line in process.stderr:
            assert "file of the user" not in line
            if "worker serves" in line:
                served += 1
                # A second signal would kill them.
                if served == 2:
                    process.terminate()
        assert served == 2
    assert process.returncode == 0
