"""The container files: what they name exists, and the dashboard asks for metrics that exist."""

import http.server
import itertools
import json
import re
import shutil
import subprocess
import sys
import threading
import tomllib
from collections.abc import Iterator
from fnmatch import fnmatch
from importlib import resources
from pathlib import Path
from typing import Any

import jsonschema
import pytest
import yaml

from service.metrics import Metrics
from service.settings import Settings

ROOT = Path(__file__).parent.parent
DOCKER = ROOT / "docker"
COMPOSE_FILES = [ROOT / "docker-compose.yml", ROOT / "docker-compose.gpu.yml"]
DOCKERFILES = [DOCKER / "service.Dockerfile", DOCKER / "model_export.Dockerfile"]
DASHBOARDS = sorted((DOCKER / "grafana" / "dashboards").glob("*.json"))
LISTENS = {"service": 8000, "prometheus": 9090, "grafana": 3000}

COMPOSE: dict[str, Any] = yaml.safe_load(COMPOSE_FILES[0].read_text())
GPU: dict[str, Any] = yaml.safe_load(COMPOSE_FILES[1].read_text())
SERVICES: dict[str, dict[str, Any]] = COMPOSE["services"]
LONG_RUNNING = [name for name in SERVICES if name != "model"]


def instructions(dockerfile: Path) -> list[list[tuple[str, str]]]:
    """Read a Dockerfile: its stages, each a list of instructions and their arguments."""
    text = re.sub(r"^#.*\n", "", dockerfile.read_text(), flags=re.MULTILINE)
    lines = re.sub(r"\\\n\s*", " ", text).splitlines()
    stages: list[list[tuple[str, str]]] = [[]]
    for word, _, rest in (line.partition(" ") for line in lines if line):
        if word == "FROM":
            stages.append([])
        stages[-1].append((word, rest.strip()))
    return stages


def arguments(stage: list[tuple[str, str]], word: str) -> list[str]:
    return [rest for name, rest in stage if name == word]


def volumes(kind: str) -> Iterator[tuple[str, str]]:
    """Yield (source, target) of the bind mounts or the named volumes of all services."""
    for service in SERVICES.values():
        for line in service.get("volumes", []):
            source, target = line.split(":")[:2]
            if source.startswith(".") == (kind == "bind"):
                yield source, target


# Compose


@pytest.mark.parametrize("path", COMPOSE_FILES, ids=lambda path: path.name)
def test_compose_file_follows_the_compose_specification(path: Path) -> None:
    package = pytest.importorskip("check_jsonschema", reason="it brings the schema")
    file = resources.files(package) / "builtin_schemas" / "vendor" / "compose-spec.json"
    jsonschema.validate(yaml.safe_load(path.read_text()), json.loads(file.read_text()))


def test_every_file_that_compose_names_exists() -> None:
    builds = [service["build"] for service in SERVICES.values() if "build" in service]
    named = [ROOT / build["context"] / build["dockerfile"] for build in builds]
    named += [ROOT / source for source, _ in volumes("bind")]
    assert [path for path in named if not path.exists()] == []


def test_named_volumes_are_declared_and_used() -> None:
    assert {source for source, _ in volumes("named")} == set(COMPOSE["volumes"])


@pytest.mark.parametrize("path", COMPOSE_FILES, ids=lambda path: path.name)
def test_every_variable_has_a_default_and_is_documented(path: Path) -> None:
    used = re.findall(r"\$\{(\w+)(:-[^}]+)?\}", path.read_text())
    assert [name for name, default in used if not default] == []
    readme = (DOCKER / "README.md").read_text()
    environments = [service.get("environment", {}) for service in SERVICES.values()]
    passed_on = [name for each in environments for name, value in each.items() if value is None]
    names = [*passed_on, *(name for name, _ in used)]
    assert [name for name in names if f"`{name}`" not in readme] == []


def test_dependencies_exist_and_can_be_awaited() -> None:
    for service in SERVICES.values():
        for name, dependency in service.get("depends_on", {}).items():
            awaited = dependency["condition"]
            ends = SERVICES[name]["restart"] == "no"
            assert awaited == ("service_completed_successfully" if ends else "service_healthy")


@pytest.mark.parametrize("name", LONG_RUNNING)
def test_long_running_services_restart_and_are_watched(name: str) -> None:
    service = SERVICES[name]
    assert service["restart"] == "unless-stopped"
    built = "build" in service and instructions(ROOT / service["build"]["dockerfile"])[-1]
    assert arguments(built, "HEALTHCHECK") if built else service["healthcheck"]["test"]


@pytest.mark.parametrize("name", SERVICES)
def test_services_are_confined(name: str) -> None:
    service = SERVICES[name]
    assert service["read_only"] is True
    assert service["cap_drop"] == ["ALL"]
    assert service["security_opt"] == ["no-new-privileges:true"]
    assert set(service["deploy"]["resources"]["limits"]) == {"cpus", "memory", "pids"}
    assert "privileged" not in service


def test_published_ports_are_ones_that_are_listened_on() -> None:
    published = {
        name: [int(port.rpartition(":")[2]) for port in service.get("ports", [])]
        for name, service in SERVICES.items()
    }
    assert published == {"model": [], **{name: [port] for name, port in LISTENS.items()}}


def test_only_the_service_is_published_beyond_this_machine() -> None:
    assert SERVICES["prometheus"]["ports"] == ["127.0.0.1:9090:9090"]
    assert SERVICES["grafana"]["ports"][0].startswith("${GRAFANA_ADDRESS:-127.0.0.1}:")


def test_stop_grace_outlasts_the_drain() -> None:
    grace_s = float(SERVICES["service"]["stop_grace_period"].removesuffix("s"))
    defaults = {name: field.default for name, field in Settings.model_fields.items()}
    assert grace_s > defaults["drain_grace_s"] + defaults["shutdown_timeout_s"]


def test_server_settings_that_the_containers_set_exist() -> None:
    named = {*SERVICES["service"]["environment"], *GPU["services"]["service"]["environment"]}
    named |= set(re.findall(r"YOLOX_\w+(?==)", DOCKERFILES[0].read_text()))
    settings = {f"YOLOX_{name.upper()}" for name in Settings.model_fields}
    assert {"YOLOX_MODEL", "YOLOX_HOST", "YOLOX_DEVICE"} <= named <= settings


@pytest.mark.parametrize("services", [SERVICES, GPU["services"]], ids=["cpu", "gpu"])
def test_the_model_is_fetched_by_the_image_that_serves_it(services: dict[str, Any]) -> None:
    assert services["model"]["image"] == services["service"]["image"]


def test_the_fetched_model_is_the_one_served() -> None:
    written = SERVICES["model"]["command"][-1]
    assert written == SERVICES["service"]["environment"]["YOLOX_MODEL"]
    assert "models:/models" in SERVICES["model"]["volumes"]
    assert "models:/models:ro" in SERVICES["service"]["volumes"]


def test_gpu_override_changes_services_that_exist_and_reserves_a_gpu() -> None:
    assert set(GPU["services"]) <= set(SERVICES)
    service = GPU["services"]["service"]
    (device,) = service["deploy"]["resources"]["reservations"]["devices"]
    assert device["capabilities"] == ["gpu"]
    assert service["build"]["args"]["FLAVOUR"] == "gpu"


# Images


@pytest.mark.parametrize("path", DOCKERFILES, ids=lambda path: path.name)
def test_every_copied_file_is_in_the_build_context(path: Path) -> None:
    stages = instructions(path)
    copies = itertools.chain.from_iterable(arguments(stage, "COPY") for stage in stages)
    named = [name for copy in copies if "--from" not in copy for name in copy.split()[:-1]]
    ignored, *rules = re.findall(r"^[^#\n].*$", (ROOT / ".dockerignore").read_text(), re.MULTILINE)
    allowed = [rule.removeprefix("!") for rule in rules if rule.startswith("!")]
    assert ignored == "*"
    assert [name for name in named if not any(fnmatch(name, rule) for rule in allowed)] == []
    assert [name for name in named if not (ROOT / name).exists()] == []


@pytest.mark.parametrize("path", DOCKERFILES, ids=lambda path: path.name)
def test_last_stage_holds_no_build_tools_and_runs_as_a_plain_user(path: Path) -> None:
    last = instructions(path)[-1]
    assert not re.search(r"\b(pip|apt-get|gcc) ", " ".join(arguments(last, "RUN")))
    assert re.fullmatch(r"[1-9]\d+:[1-9]\d+", arguments(last, "USER")[-1])


@pytest.mark.parametrize("path", DOCKERFILES, ids=lambda path: path.name)
def test_sigterm_reaches_python(path: Path) -> None:
    last = instructions(path)[-1]
    (entry,) = arguments(last, "ENTRYPOINT")
    assert json.loads(entry) == ["python", "-m", path.stem]
    assert arguments(last, "STOPSIGNAL") == ["SIGTERM"]


@pytest.mark.parametrize(
    ("extras", "has_torch"),
    [(["cpu", "fetch"], False), (["gpu", "fetch"], False), (["train", "cpu"], True)],
)
def test_requirements_are_those_of_the_extras(extras: list[str], has_torch: bool) -> None:
    script = [sys.executable, str(DOCKER / "requirements.py"), *extras]
    lines = subprocess.run(script, cwd=ROOT, check=True, capture_output=True, text=True).stdout
    project = tomllib.loads((ROOT / "pyproject.toml").read_text())["project"]
    expected = set(project["dependencies"])
    expected.update(*(project["optional-dependencies"][extra] for extra in extras))
    assert set(lines.splitlines()) == expected
    assert any(line.startswith("torch") for line in expected) is has_torch


def healthcheck(port: int) -> subprocess.CompletedProcess[str]:
    return subprocess.run(
        [sys.executable, str(DOCKER / "healthcheck.py")],
        env={"YOLOX_PORT": str(port)},
        check=False,
        capture_output=True,
        text=True,
    )


@pytest.mark.parametrize(("status", "code"), [(200, 0), (503, 1)])
def test_healthcheck_passes_only_when_ready(status: int, code: int) -> None:
    class Handler(http.server.BaseHTTPRequestHandler):
        def do_GET(self) -> None:
            self.send_response(status if self.path == "/health/ready" else 404)
            self.end_headers()
            self.wfile.write(b"draining")

        def log_message(self, format: str, *args: object) -> None:  # noqa: A002 - its name there
            pass

    with http.server.HTTPServer(("127.0.0.1", 0), Handler) as server:
        thread = threading.Thread(target=server.handle_request)
        thread.start()
        result = healthcheck(server.server_port)
        thread.join()
    assert result.returncode == code
    assert result.stderr == ("" if code == 0 else "503: draining\n")


def test_healthcheck_fails_when_nothing_listens() -> None:
    with http.server.HTTPServer(("127.0.0.1", 0), http.server.BaseHTTPRequestHandler) as server:
        port = server.server_port
    result = healthcheck(port)
    assert result.returncode == 1
    assert result.stderr.startswith(f"no answer on port {port}: ")


# Prometheus and Grafana


def panels(dashboard: Path) -> list[dict[str, Any]]:
    loaded: list[dict[str, Any]] = json.loads(dashboard.read_text())["panels"]
    return loaded


def queries(dashboard: Path) -> list[str]:
    targets = (target for panel in panels(dashboard) for target in panel.get("targets", []))
    return [target["expr"].replace("$__rate_interval", "1m") for target in targets]


def alerts() -> list[str]:
    rules = yaml.safe_load((DOCKER / "prometheus" / "rules.yml").read_text())
    return [rule["expr"] for group in rules["groups"] for rule in group["rules"]]


QUERIES = [*alerts(), *(query for dashboard in DASHBOARDS for query in queries(dashboard))]
GROUPING = r"\b(?:by|without|on|ignoring|group_left|group_right)\s*\(([^)]*)\)"


def metric_names(query: str) -> set[str]:
    """Find the names in PromQL that are neither functions, labels, operators nor strings."""
    bare = re.sub(rf'"[^"]*"|\{{[^}}]*\}}|\[[^\]]*\]|{GROUPING}', " ", query)
    return set(re.findall(r"\b[a-zA-Z_]\w*\b(?!\s*\()", bare)) - {"or", "and", "unless", "bool"}


def registered_names(metrics: Metrics) -> set[str]:
    suffixes = {"counter": ["_total"], "histogram": ["_bucket", "_sum", "_count"]}
    return {
        family.name + suffix
        for family in metrics.registry.collect()
        for suffix in suffixes.get(family.type, [""])
    }


@pytest.mark.parametrize("query", QUERIES)
def test_queries_name_metrics_that_the_server_has(query: str) -> None:
    assert metric_names(query)
    assert metric_names(query) <= registered_names(Metrics()) | {"up"}


@pytest.mark.parametrize("query", QUERIES)
def test_queries_name_labels_that_the_server_has(query: str) -> None:
    groups = ",".join(re.findall(GROUPING, query)).split(",")
    used = {name.strip() for name in groups if name.strip()}
    used |= set(re.findall(r'(\w+)\s*(?:=~|!~|!=|=)\s*"', query))
    known = {label for metric in vars(Metrics()).values() for label in labels_of(metric)}
    assert used <= known | {"job", "instance", "le"}


def labels_of(metric: object) -> tuple[str, ...]:
    """Read the label names of a metric that may have no series yet (no public way to)."""
    names: tuple[str, ...] = getattr(metric, "_labelnames", ())
    return names


def test_prometheus_scrapes_the_service_where_it_listens() -> None:
    config = yaml.safe_load((DOCKER / "prometheus" / "prometheus.yml").read_text())
    (job,) = config["scrape_configs"]
    assert job["static_configs"] == [{"targets": [f"service:{LISTENS['service']}"]}]


@pytest.mark.skipif(not shutil.which("promtool"), reason="promtool is not installed")
def test_promtool_accepts_configuration_rules_and_queries(tmp_path: Path) -> None:
    rules = [{"record": f"query:{number}", "expr": query} for number, query in enumerate(QUERIES)]
    written = tmp_path / "queries.yml"
    written.write_text(yaml.safe_dump({"groups": [{"name": "dashboard", "rules": rules}]}))
    folder = DOCKER / "prometheus"
    commands: list[list[str | Path]] = [
        ["promtool", "check", "config", folder / "prometheus.yml"],
        ["promtool", "test", "rules", folder / "rules_test.yml"],
        ["promtool", "check", "rules", written],
    ]
    for command in commands:
        subprocess.run(command, check=True, capture_output=True)


@pytest.mark.parametrize("path", DASHBOARDS, ids=lambda path: path.name)
def test_every_panel_has_an_id_a_description_a_unit_and_a_query(path: Path) -> None:
    shown = [panel for panel in panels(path) if panel["type"] != "row"]
    ids = [panel["id"] for panel in panels(path)]
    assert len(set(ids)) == len(ids)
    for panel in shown:
        assert panel["description"]
        assert panel["fieldConfig"]["defaults"].get("unit") or panel["options"]["yAxis"]["unit"]
        assert panel["targets"]
        assert all(target["expr"] for target in panel["targets"])


@pytest.mark.parametrize("path", DASHBOARDS, ids=lambda path: path.name)
def test_panels_do_not_overlap(path: Path) -> None:
    cells: set[tuple[int, int]] = set()
    for panel in panels(path):
        at = panel["gridPos"]
        columns, rows = range(at["x"], at["x"] + at["w"]), range(at["y"], at["y"] + at["h"])
        own = set(itertools.product(columns, rows))
        assert at["x"] + at["w"] <= 24
        assert not cells & own, panel["title"]
        cells |= own


def test_dashboards_ask_the_provisioned_datasource() -> None:
    folder = DOCKER / "grafana" / "provisioning"
    (source,) = yaml.safe_load((folder / "datasources" / "prometheus.yml").read_text())[
        "datasources"
    ]
    shown = [panel for path in DASHBOARDS for panel in panels(path) if panel["type"] != "row"]
    asked = [part["datasource"]["uid"] for panel in shown for part in [panel, *panel["targets"]]]
    assert set(asked) == {source["uid"]}
    assert source["url"] == f"http://prometheus:{LISTENS['prometheus']}"


def test_grafana_finds_the_dashboards_where_they_are_mounted() -> None:
    folder = DOCKER / "grafana" / "provisioning"
    (provider,) = yaml.safe_load((folder / "dashboards" / "yolox.yml").read_text())["providers"]
    mounts = {target: source for source, target in volumes("bind")}
    assert ROOT / mounts[provider["options"]["path"]] == DOCKER / "grafana" / "dashboards"
    home = SERVICES["grafana"]["environment"]["GF_DASHBOARDS_DEFAULT_HOME_DASHBOARD_PATH"]
    assert Path(home).name in {path.name for path in DASHBOARDS}
