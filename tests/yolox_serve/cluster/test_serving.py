"""The server under Ray Serve, less Ray: its options, and the list of metrics."""

from pathlib import Path

import pytest
import yaml
from pydantic import ValidationError

from service.errors import StartupError
from support.project import ROOT
from yolox_serve.cluster.serving import ServeOptions, deployment_options, replica_settings
from yolox_serve.cluster.targets import FORGET_S, Targets

CONFIG = ROOT / "deploy" / "ray" / "serve.yaml"


def test_the_server_refuses_before_ray_keeps_a_request_waiting() -> None:
    options = ServeOptions(settings={"max_queue_images": 100})
    told = deployment_options(options, replica_settings(options))
    assert told["max_ongoing_requests"] > 100
    assert told["max_queued_requests"] == told["max_ongoing_requests"]


def test_replicas_scale_by_the_requests_that_wait_in_them() -> None:
    options = ServeOptions(min_replicas=2, max_replicas=1, target_ongoing_requests=7, gpus=0.25)
    told = deployment_options(options, replica_settings(options))
    scaling = told["autoscaling_config"]
    assert (scaling["min_replicas"], scaling["max_replicas"]) == (2, 2)
    assert scaling["target_ongoing_requests"] == 7
    assert told["ray_actor_options"] == {"num_cpus": 1, "num_gpus": 0.25}


def test_a_replica_runs_on_as_many_threads_as_it_has_cpus() -> None:
    settings = replica_settings(ServeOptions(cpus=3))
    assert (settings.engine_instances, settings.engine_threads) == (3, 1)
    assert replica_settings(ServeOptions(cpus=0.5)).engine_instances == 1
    on_gpu = replica_settings(ServeOptions(cpus=3, gpus=1))
    assert (on_gpu.engine_instances, on_gpu.engine_threads) == (None, None)
    asked = replica_settings(ServeOptions(cpus=3, settings={"engine_threads": 2}))
    assert (asked.engine_instances, asked.engine_threads) == (None, 2)


def test_a_replica_is_one_process_whatever_the_environment_says(
    monkeypatch: pytest.MonkeyPatch,
) -> None:
    monkeypatch.setenv("YOLOX_WORKERS", "4")
    monkeypatch.setenv("YOLOX_METRICS_PORT", "9100")
    settings = replica_settings(ServeOptions())
    assert (settings.workers, settings.metrics_port) == (1, 0)


@pytest.mark.parametrize("name", ["workers", "port", "host", "max_connections", "grpc_port"])
def test_settings_that_ray_replaces_are_refused_with_what_to_use(name: str) -> None:
    with pytest.raises(StartupError, match=f"the setting {name} has no effect under Ray; use "):
        replica_settings(ServeOptions(settings={name: 1}))


def test_a_word_that_is_no_option_is_refused() -> None:
    with pytest.raises(ValidationError, match="min_replica"):
        ServeOptions.model_validate({"min_replica": 1})


def test_the_shipped_configuration_has_options_that_there_are() -> None:
    config = yaml.safe_load(CONFIG.read_text())
    (application,) = config["applications"]
    options = ServeOptions.model_validate(application["args"])
    settings = replica_settings(options)
    # Ray's own limit ends only what the server's deadline has not.
    assert config["http_options"]["request_timeout_s"] > settings.request_timeout_ms / 1000
    module, function = application["import_path"].split(":")
    assert Path(ROOT, *module.split(".")).with_suffix(".py").is_file()
    assert f"def {function}(" in (ROOT / "deploy" / "ray" / "serve_app.py").read_text()


def test_targets_that_no_longer_report_are_forgotten() -> None:
    now = [100.0]
    targets = Targets(lambda: now[0])
    targets.report("10.0.0.1:9000", {"replica": "a"})
    now[0] += FORGET_S - 1
    targets.report("10.0.0.2:9000", {"replica": "b"})
    assert [each["targets"] for each in targets.listing()] == [["10.0.0.1:9000"], ["10.0.0.2:9000"]]
    now[0] += 2
    assert targets.listing() == [{"targets": ["10.0.0.2:9000"], "labels": {"replica": "b"}}]
