"""The container files: what they name exists, and the dashboard asks for metrics that exist."""

import http.server
import itertools
import json
import re
import socket
import socketserver
import subprocess
import sys
import threading
import tomllib
from collections.abc import Iterator
from fnmatch import fnmatch
from importlib import resources
from pathlib import Path
from types import ModuleType
from typing import Any, get_args

import jsonschema
import pytest
import yaml

from service.observe.gpus import GpuCollector
from service.observe.metrics import Metrics
from service.settings import Device, Settings
from support.dashboards import (
    DASHBOARDS,
    MAY_BE_EMPTY,
    annotations,
    filled,
    panels,
    queries,
    shown,
)
from support.project import ROOT

DOCKER = ROOT / "docker"
COMPOSE_FILES = [ROOT / f"docker-compose{name}.yml" for name in ("", ".gpu", ".secrets")]
DOCKERFILES = [DOCKER / "service.Dockerfile", DOCKER / "model_export.Dockerfile"]
LISTENS = {"service": 8000, "edge": 8080, "prometheus": 9090, "grafana": 3000}

COMPOSE: dict[str, Any] = yaml.safe_load(COMPOSE_FILES[0].read_text())
GPU: dict[str, Any] = yaml.safe_load(COMPOSE_FILES[1].read_text())
SECRETS: dict[str, Any] = yaml.safe_load(COMPOSE_FILES[2].read_text())
SERVICES: dict[str, dict[str, Any]] = COMPOSE["services"]
LONG_RUNNING = [name for name, service in SERVICES.items() if service["restart"] != "no"]
ONE_SHOT = [name for name in SERVICES if name not in LONG_RUNNING]


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


def image_of(dockerfile: Path, target: str | None = None) -> list[tuple[str, str]]:
    """All instructions of a stage, those of the stages that it goes on from first."""
    stages = {stage[0][1].split()[-1]: stage for stage in instructions(dockerfile)[1:]}
    stage = stages[target or list(stages)[-1]]
    base = stage[0][1].split()[0]
    return [*(image_of(dockerfile, base) if base in stages else []), *stage]


def volumes(kind: str) -> Iterator[tuple[str, str]]:
    """Yield (source, target) of the bind mounts or the named volumes of all services."""
    for service in SERVICES.values():
        for line in service.get("volumes", []):
            # A variable's value is the operator's own folder.
            source, target = re.sub(r"\$\{[^}]+\}", "$", line).split(":")[:2]
            if "$" not in source and source.startswith(".") == (kind == "bind"):
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
    used = re.findall(r"\$\{(\w+)(:-[^}]*)?\}", path.read_text())
    assert [name for name, default in used if not default] == []
    readme = (DOCKER / "README.md").read_text()
    environments = [service.get("environment", {}) for service in SERVICES.values()]
    passed_on = [name for each in environments for name, value in each.items() if value is None]
    names = [*passed_on, *(name for name, _ in used)]
    assert [name for name in names if f"`{name}`" not in readme] == []


def test_dependencies_exist_and_can_be_awaited() -> None:
    for service in SERVICES.values():
        for name, dependency in service.get("depends_on", {}).items():
            assert name in LONG_RUNNING
            assert dependency["condition"] == "service_healthy"


def test_nothing_starts_before_what_it_watches_is_well() -> None:
    awaited = {name: list(service.get("depends_on", [])) for name, service in SERVICES.items()}
    assert awaited["edge"] == awaited["prometheus"] == ["service"]
    assert awaited["grafana"] == ["prometheus"]
    assert awaited["service"] == []


def test_what_runs_once_is_started_by_name_alone() -> None:
    assert ONE_SHOT == ["fetch", "export"]
    for name in ONE_SHOT:
        assert SERVICES[name]["profiles"] == ["models"]


def test_the_edge_is_started_on_request() -> None:
    assert [name for name in LONG_RUNNING if "profiles" in SERVICES[name]] == ["edge"]
    assert SERVICES["edge"]["profiles"] == ["edge"]


def test_the_edge_serves_tls_if_certificates_are_given() -> None:
    edge = SERVICES["edge"]
    (config,) = (word for word in edge["entrypoint"] if word.endswith(".conf"))
    for value, name in (("", "http.conf"), ("s", "https.conf")):
        path = config.replace("${EDGE_CERTIFICATES:+s}", value)
        assert path == f"/etc/nginx/edge/{name}"
        assert (DOCKER / "edge" / name).is_file()
    (line,) = (volume for volume in edge["volumes"] if "EDGE_CERTIFICATES" in volume)
    folder = line.removesuffix(":ro").rpartition(":")[2]
    assert f"ssl_certificate {folder}/" in (DOCKER / "edge" / "https.conf").read_text()


def test_the_edge_asks_the_service_and_is_asked_where_nginx_listens() -> None:
    configuration = "".join(path.read_text() for path in (DOCKER / "edge").glob("*.conf"))
    assert f"server service:{LISTENS['service']} resolve" in configuration
    assert configuration.count(f"listen {LISTENS['edge']}") == 2
    (url,) = (word for word in SERVICES["edge"]["healthcheck"]["test"] if "http" in word)
    address, _, path = url.removeprefix("http://").partition("/")
    assert f"listen {address};" in configuration
    assert f"location = /{path} " in configuration


@pytest.mark.parametrize("name", LONG_RUNNING)
def test_long_running_services_restart_and_are_watched(name: str) -> None:
    service = SERVICES[name]
    assert service["restart"] == "unless-stopped"
    build = service.get("build")
    image = build and image_of(ROOT / build["dockerfile"], build["target"])
    assert arguments(image, "HEALTHCHECK") if image else service["healthcheck"]["test"]


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
    assert published == {name: [LISTENS[name]] if name in LISTENS else [] for name in SERVICES}
    assert arguments(image_of(DOCKERFILES[0]), "EXPOSE") == [str(LISTENS["service"])]


def test_only_the_service_and_the_edge_are_published_beyond_this_machine() -> None:
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


def test_the_model_inside_is_served_unless_another_is_named() -> None:
    assert SERVICES["service"]["environment"]["YOLOX_MODEL"] == "${YOLOX_MODEL:-}"
    assert Settings(model="").model is None  # type: ignore[arg-type]
    assert "YOLOX_MODEL" not in " ".join(arguments(image_of(DOCKERFILES[0]), "ENV"))


@pytest.mark.parametrize("name", ONE_SHOT)
def test_models_are_written_where_the_service_reads_them(name: str) -> None:
    assert "models:/models" in SERVICES[name]["volumes"]
    assert "models:/models:ro" in SERVICES["service"]["volumes"]


def test_fetching_writes_into_the_volume() -> None:
    command, _, flag, path = SERVICES["fetch"]["command"]
    assert (command, flag) == ("fetch", "--output")
    assert path.startswith("/models/")


@pytest.mark.parametrize("name", [name for name in SERVICES if "build" in SERVICES[name]])
def test_built_services_name_stages_that_exist_and_never_a_registry(name: str) -> None:
    build = SERVICES[name]["build"]
    assert image_of(ROOT / build["dockerfile"], build.get("target"))
    assert SERVICES[name]["pull_policy"] == "build"


def test_secrets_are_declared_and_reach_who_reads_them() -> None:
    (key,) = SECRETS["services"]["service"]["secrets"]
    grafana = SECRETS["services"]["grafana"]
    assert {key, *grafana["secrets"]} == set(SECRETS["secrets"])
    environment = SECRETS["services"]["service"]["environment"]
    assert environment == {"YOLOX_API_KEY_FILE": f"/run/secrets/{key}"}
    password = grafana["environment"]["GF_SECURITY_ADMIN_PASSWORD__FILE"]
    assert password == f"/run/secrets/{grafana['secrets'][0]}"
    assert grafana["environment"]["GF_SECURITY_ADMIN_PASSWORD"] == ""


def test_the_server_takes_its_key_from_a_secret_file(tmp_path: Path) -> None:
    (tmp_path / "YOLOX_API_KEY").write_text("from-a-file")
    key = Settings(_secrets_dir=tmp_path).api_key
    assert key is not None
    assert key.get_secret_value() == "from-a-file"


def test_gpu_override_changes_services_that_exist_and_reserves_a_gpu() -> None:
    assert set(GPU["services"]) <= set(SERVICES)
    service = GPU["services"]["service"]
    (device,) = service["deploy"]["resources"]["reservations"]["devices"]
    assert device["capabilities"] == ["gpu"]
    assert service["build"]["args"]["FLAVOUR"] == "gpu"


def test_on_a_cpu_the_engine_is_measured_unless_one_is_pinned() -> None:
    service = SERVICES["service"]
    extras = tomllib.loads((ROOT / "pyproject.toml").read_text())["project"]
    assert service["build"]["args"]["FLAVOUR"] in extras["optional-dependencies"]
    assert service["environment"]["YOLOX_DEVICE"] == "${YOLOX_DEVICE:-auto}"
    (row,) = re.findall(
        r"^\| `YOLOX_DEVICE` (.*)$", (DOCKER / "README.md").read_text(), re.MULTILINE
    )
    assert set(re.findall(r"`(\w+)`", row)) == {"auto", "cpu", "openvino"} <= set(get_args(Device))


# Images


@pytest.mark.parametrize("path", DOCKERFILES, ids=lambda path: path.name)
def test_every_copied_file_is_in_the_build_context(path: Path) -> None:
    stages = instructions(path)
    copies = itertools.chain.from_iterable(arguments(stage, "COPY") for stage in stages)
    copied = [name for copy in copies if "--from" not in copy for name in copy.split()[:-1]]
    named = [name.replace("${FLAVOUR}", flavour) for name in copied for flavour in ("cpu", "gpu")]
    ignored, *rules = re.findall(r"^[^#\n].*$", (ROOT / ".dockerignore").read_text(), re.MULTILINE)
    allowed = [rule.removeprefix("!") for rule in rules if rule.startswith("!")]
    assert ignored == "*"
    assert [name for name in named if not any(fnmatch(name, rule) for rule in allowed)] == []
    assert [name for name in named if not (ROOT / name).exists()] == []


@pytest.mark.parametrize("path", DOCKERFILES, ids=lambda path: path.name)
def test_last_stage_holds_no_build_tools_and_runs_as_a_plain_user(path: Path) -> None:
    image = image_of(path)
    assert not re.search(r"\b(pip|apt-get|gcc) ", " ".join(arguments(image, "RUN")))
    assert re.fullmatch(r"[1-9]\d+:[1-9]\d+", arguments(image, "USER")[-1])


@pytest.mark.parametrize("path", DOCKERFILES, ids=lambda path: path.name)
def test_sigterm_reaches_python(path: Path) -> None:
    image = image_of(path)
    (entry,) = arguments(image, "ENTRYPOINT")
    assert json.loads(entry) == ["python", "-m", path.stem]
    assert arguments(image, "STOPSIGNAL") == ["SIGTERM"]


@pytest.mark.parametrize("path", DOCKERFILES, ids=lambda path: path.name)
def test_images_are_pinned_and_labelled(path: Path) -> None:
    (base,) = re.findall(r"^ARG PYTHON_IMAGE=(\S+)$", path.read_text(), re.MULTILINE)
    assert re.fullmatch(r"python:3\.\d+-slim-\w+@sha256:[0-9a-f]{64}", base)
    assert "--require-hashes -r" in path.read_text()
    labels = set(re.findall(r"opencontainers\.image\.([a-z.]+)=", path.read_text()))
    assert {"title", "version", "revision", "created", "source", "licenses"} <= labels


def test_trimming_takes_what_the_patterns_name_and_nothing_else(tmp_path: Path) -> None:
    kept = ["onnxruntime/capi/state.so", "numpy/linalg/linalg.py"]
    taken = ["onnxruntime/capi/libonnxruntime.so.1.2", "numpy/linalg/tests/test.py", "cv2/a.pyi"]
    for name in [*kept, *taken]:
        path = tmp_path / name
        path.parent.mkdir(parents=True, exist_ok=True)
        path.write_text("1234")
    command = [sys.executable, str(DOCKER / "trim.py"), str(tmp_path)]
    subprocess.run(command, check=True, capture_output=True)
    assert [name for name in [*kept, *taken] if (tmp_path / name).exists()] == kept


@pytest.mark.parametrize(
    ("extras", "has_torch"),
    [(["cpu"], False), (["gpu"], False), (["fetch"], False), (["train", "cpu"], True)],
)
def test_requirements_are_those_of_the_extras(extras: list[str], has_torch: bool) -> None:
    script = [sys.executable, str(DOCKER / "requirements.py"), *extras]
    lines = subprocess.run(script, cwd=ROOT, check=True, capture_output=True, text=True).stdout
    project = tomllib.loads((ROOT / "pyproject.toml").read_text())["project"]
    expected = set(project["dependencies"])
    expected.update(*(project["optional-dependencies"][extra] for extra in extras))
    assert set(lines.splitlines()) == expected
    assert any(line.startswith("torch") for line in expected) is has_torch


def healthcheck(**variables: str) -> subprocess.CompletedProcess[str]:
    return subprocess.run(
        [sys.executable, str(DOCKER / "healthcheck.py")],
        env=variables,
        check=False,
        capture_output=True,
        text=True,
    )


class UnixServer(http.server.HTTPServer):
    address_family = socket.AF_UNIX

    def server_bind(self) -> None:
        socketserver.TCPServer.server_bind(self)

    def get_request(self) -> tuple[socket.socket, tuple[str, int]]:
        return self.socket.accept()[0], ("unix", 0)


@pytest.mark.parametrize("unix", [False, True])
@pytest.mark.parametrize(("status", "code"), [(200, 0), (503, 1)])
def test_healthcheck_passes_only_when_ready(
    status: int, code: int, unix: bool, tmp_path: Path
) -> None:
    class Handler(http.server.BaseHTTPRequestHandler):
        def do_GET(self) -> None:
            self.send_response(status if self.path == "/health/ready" else 404)
            self.end_headers()
            self.wfile.write(b"draining")

        def log_message(self, format: str, *args: object) -> None:  # noqa: A002 - its name there
            pass

    path = str(tmp_path / "s")
    address = path if unix else ("127.0.0.1", 0)
    with (UnixServer if unix else http.server.HTTPServer)(address, Handler) as server:  # type: ignore[arg-type]
        thread = threading.Thread(target=server.handle_request)
        thread.start()
        where = {"YOLOX_UNIX_SOCKET": path} if unix else {"YOLOX_PORT": str(server.server_port)}
        result = healthcheck(**where)
        thread.join()
    assert result.returncode == code
    assert result.stderr == ("" if code == 0 else "503: draining\n")


def test_healthcheck_fails_when_nothing_listens() -> None:
    with http.server.HTTPServer(("127.0.0.1", 0), http.server.BaseHTTPRequestHandler) as server:
        port = server.server_port
    result = healthcheck(YOLOX_PORT=str(port))
    assert result.returncode == 1
    assert result.stderr.startswith(f"no answer on port {port}: ")


# Prometheus and Grafana


def rules() -> list[dict[str, Any]]:
    files = [DOCKER / "prometheus" / name for name in ("recording.yml", "alerts.yml")]
    groups = [group for file in files for group in yaml.safe_load(file.read_text())["groups"]]
    return [rule for group in groups for rule in group["rules"]]


RECORDED = {rule["record"] for rule in rules() if "record" in rule}
PANELS = [panel for dashboard in DASHBOARDS for panel in shown(dashboard)]
NO_GPU = ModuleType("pynvml")
NO_GPU.NVMLError = RuntimeError  # type: ignore[attr-defined]
NO_GPU.nvmlDeviceGetCount = lambda: 0  # type: ignore[attr-defined]
QUERIES = sorted(
    {
        *(rule["expr"] for rule in rules()),
        *(query for panel in PANELS for query in queries(panel)),
        *(filled(note["expr"]) for dashboard in DASHBOARDS for note in annotations(dashboard)),
    }
)
# Series that Prometheus makes itself.
ITS_OWN = {"up", "ALERTS"}
GROUPING = r"\b(?:by|without|on|ignoring|group_left|group_right)\s*\(([^)]*)\)"


def metric_names(query: str) -> set[str]:
    """Find the names in PromQL that are neither functions, labels, operators nor strings."""
    bare = re.sub(rf'"[^"]*"|\{{[^}}]*\}}|\[[^\]]*\]|{GROUPING}', " ", query)
    words = set(re.findall(r"(?<![\w.])[a-zA-Z_][\w:]*\b(?!\s*\()", bare))
    return words - {"or", "and", "unless", "bool", "offset"}


def registered_names(metrics: Metrics) -> set[str]:
    suffixes = {"counter": ["_total"], "histogram": ["_bucket", "_sum", "_count"]}
    families = [*metrics.registry.collect(), *GpuCollector(NO_GPU).collect()]
    return {
        family.name + suffix for family in families for suffix in suffixes.get(family.type, [""])
    }


@pytest.mark.parametrize("query", QUERIES)
def test_queries_name_metrics_that_the_server_has(query: str) -> None:
    assert metric_names(query)
    assert metric_names(query) <= registered_names(Metrics()) | RECORDED | ITS_OWN


@pytest.mark.parametrize("query", QUERIES)
def test_queries_name_labels_that_the_server_has(query: str) -> None:
    groups = ",".join(re.findall(GROUPING, query)).split(",")
    used = {name.strip() for name in groups if name.strip()}
    used |= set(re.findall(r'(\w+)\s*(?:=~|!~|!=|=)\s*"', query))
    known = {label for metric in vars(Metrics()).values() for label in labels_of(metric)}
    assert used <= known | {"job", "instance", "le", "gpu", "alertname", "alertstate"}


def labels_of(metric: object) -> tuple[str, ...]:
    """Read the label names of a metric that may have no series yet (no public way to)."""
    names: tuple[str, ...] = getattr(metric, "_labelnames", ())
    return names


def test_prometheus_scrapes_the_service_where_it_listens() -> None:
    config = yaml.safe_load((DOCKER / "prometheus" / "prometheus.yml").read_text())
    (job,) = config["scrape_configs"]
    (found,) = job["dns_sd_configs"]
    assert found["names"] == ["service"]
    assert found["port"] == LISTENS["service"]
    assert [found["names"][0]] == [name for name in SERVICES if name == "service"]


@pytest.mark.parametrize("path", DASHBOARDS, ids=lambda path: path.name)
def test_every_panel_has_an_id_a_description_a_unit_and_a_query(path: Path) -> None:
    ids = [panel["id"] for panel in panels(path)]
    assert len(set(ids)) == len(ids)
    for panel in shown(path):
        assert panel["description"]
        assert panel["fieldConfig"]["defaults"].get("unit") or panel["options"]["yAxis"]["unit"]
        assert panel["targets"]
        assert all(target["expr"] for target in panel["targets"])


def test_only_what_is_not_everywhere_may_be_missing_from_a_dashboard() -> None:
    without = {panel["title"] for panel in PANELS if MAY_BE_EMPTY in panel["description"]}
    elsewhere = {"CPU throttling", "Memory of the limit", "Shadow disagreement"}
    assert without == {"GPU use", "GPU memory", "Alerts", "Queue wait, in inferences"} | elsewhere


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
    asked = [part["datasource"]["uid"] for panel in PANELS for part in [panel, *panel["targets"]]]
    assert set(asked) == {"${datasource}"}
    for variable in (json.loads(path.read_text())["templating"]["list"] for path in DASHBOARDS):
        (chosen,) = (each for each in variable if each["type"] == "datasource")
        assert chosen["current"]["value"] == source["uid"]
        assert chosen["query"] == source["type"]
    assert source["url"] == f"http://prometheus:{LISTENS['prometheus']}"


def test_grafana_finds_the_dashboards_where_they_are_mounted() -> None:
    folder = DOCKER / "grafana" / "provisioning"
    (provider,) = yaml.safe_load((folder / "dashboards" / "yolox.yml").read_text())["providers"]
    mounts = {target: source for source, target in volumes("bind")}
    assert ROOT / mounts[provider["options"]["path"]] == DOCKER / "grafana" / "dashboards"
    home = SERVICES["grafana"]["environment"]["GF_DASHBOARDS_DEFAULT_HOME_DASHBOARD_PATH"]
    assert Path(home).name in {path.name for path in DASHBOARDS}
