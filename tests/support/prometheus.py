"""A real Prometheus in a process of its own, with the project's configuration."""

import json
import math
import shutil
import socket
import subprocess
import sys
from http import HTTPStatus
from pathlib import Path
from typing import Any
from urllib.error import HTTPError, URLError
from urllib.parse import urlencode
from urllib.request import urlopen

import pytest
import yaml

from support.project import ROOT

CONFIG = ROOT / "docker" / "prometheus"


def tool(name: str) -> str:
    """Path of `prometheus` or `promtool`: the machine's, else the one that make unpacked."""
    unpacked = Path(sys.prefix) / "prometheus" / "usr" / "bin" / name
    found = shutil.which(name) or (str(unpacked) if unpacked.is_file() else None)
    if found is None:
        pytest.skip(f"{name} is not installed, and make could not unpack Debian's package of it")
    return found


class Prometheus:
    """Scrapes one server every second, with all the project's rules."""

    def __init__(self, target: str, folder: Path) -> None:
        binary = tool("prometheus")
        config = folder / "prometheus.yml"
        config.write_text(yaml.safe_dump(_configuration(target)))
        self._address = f"127.0.0.1:{_free_port()}"
        self._log = (folder / "prometheus.log").open("w")
        self._process = subprocess.Popen(
            [
                binary,
                f"--config.file={config}",
                f"--storage.tsdb.path={folder / 'data'}",
                f"--web.listen-address={self._address}",
            ],
            stdout=self._log,
            stderr=subprocess.STDOUT,
        )

    def ask(self, path: str, **parameters: str) -> Any:
        """The `data` of an answer of its HTTP API; None while it is not up yet."""
        try:
            with urlopen(f"http://{self._address}/api/v1/{path}?{urlencode(parameters)}") as answer:
                return json.load(answer)["data"]
        except HTTPError as error:
            if error.code == HTTPStatus.SERVICE_UNAVAILABLE:
                return None
            raise ValueError(error.read().decode()) from error
        except URLError:
            if self._process.poll() is not None:
                raise
            return None

    def values(self, query: str) -> list[float]:
        """The current values of a query's series, without NaN."""
        data = self.ask("query", query=query) or {"resultType": "vector", "result": []}
        if data["resultType"] == "scalar":
            data = {"result": [{"value": data["result"]}]}
        values = [float(series["value"][1]) for series in data["result"]]
        return [value for value in values if not math.isnan(value)]

    def close(self) -> None:
        """Stop the process."""
        self._process.terminate()
        self._process.wait(timeout=60)
        self._log.close()


def _configuration(target: str) -> dict[str, Any]:
    """The project's configuration, with another target and an interval of 1 s."""
    config: dict[str, Any] = yaml.safe_load((CONFIG / "prometheus.yml").read_text())
    config["global"] = dict.fromkeys(("scrape_interval", "evaluation_interval"), "1s")
    config["rule_files"] = [str(CONFIG / name) for name in config["rule_files"]]
    (job,) = config["scrape_configs"]
    del job["dns_sd_configs"]
    job["static_configs"] = [{"targets": [target]}]
    return config


def _free_port() -> int:
    with socket.socket() as probe:
        probe.bind(("127.0.0.1", 0))
        return int(probe.getsockname()[1])
