"""Draws Grafana's dashboard without Grafana, from the answers of a real Prometheus.

    python -m service --model nano.onnx --max-queue-images 24 --max-images-per-request 4 &
    PYTHONPATH=tests python benchmarks/dashboard_picture.py http://127.0.0.1:8000 dash.png

It starts a Prometheus that has the project's rules and scrapes the server every second. It sends
photos from more and more clients at once, and draws what each panel, with its own queries, would
have shown of that time.
"""

import argparse
import itertools
import re
import tempfile
import threading
import time
from collections.abc import Iterator
from pathlib import Path
from typing import Any

import httpx2
import matplotlib as mpl
import numpy as np
from PIL import Image

from support.dashboards import DASHBOARDS, VARIABLES, filled, panels
from support.prometheus import Prometheus

mpl.use("agg")
import matplotlib.pyplot as plt
from matplotlib.axes import Axes

PHOTOS = Path(__file__).parents[1] / "examples"
CLIENTS = (1, 2, 4, 8, 16, 40)
FILL = {**VARIABLES, "$__rate_interval": "10s"}
MOST_LINES = 8
# Grafana's colours by name, and those that it gives to series in turn.
NAMED = {"green": "#73bf69", "orange": "#ff9830", "red": "#f2495c", "text": "#d8d9da"}
CLASSIC = "#7eb26d #eab839 #6ed0e0 #ef843c #e24d42 #1f78c1 #ba43a9 #705da0".split()
INK, PAPER, GRID = "#d8d9da", "#181b1f", "#2c3235"


def send(url: str, photos: Iterator[bytes], stop: threading.Event) -> None:
    """Be one client: send photo after photo, and wait a little after each refusal."""
    with httpx2.Client(base_url=url, timeout=60) as client:
        while not stop.is_set():
            answer = client.post(
                "/detect", content=next(photos), headers={"Content-Type": "image/jpeg"}
            )
            if answer.status_code == httpx2.codes.SERVICE_UNAVAILABLE:
                stop.wait(0.5)


def ramp(url: str, step_s: float) -> None:
    """Send load in steps, each with more clients than the last."""
    photos = itertools.cycle(path.read_bytes() for path in sorted(PHOTOS.glob("*.jpg")))
    for clients in CLIENTS:
        stop = threading.Event()
        threads = [
            threading.Thread(target=send, args=(url, _locked(photos), stop)) for _ in range(clients)
        ]
        for thread in threads:
            thread.start()
        time.sleep(step_s)
        stop.set()
        for thread in threads:
            thread.join()


LOCK = threading.Lock()


def _locked(photos: Iterator[bytes]) -> Iterator[bytes]:
    while True:
        with LOCK:
            photo = next(photos)
        yield photo


def series_of(
    prometheus: Prometheus, target: dict[str, Any], start: float, end: float
) -> list[tuple[str, list[float], list[float]]]:
    """The series of one query: legend, seconds since `start`, and values of each."""
    query = filled(target["expr"], FILL)
    data = prometheus.ask("query_range", query=query, start=str(start), end=str(end), step="2")
    drawn = []
    for series in data["result"]:
        legend = target["legendFormat"]
        for label, value in series["metric"].items():
            legend = legend.replace(f"{{{{{label}}}}}", value)
        legend = re.sub(r"\{\{\w+\}\}", "", legend).strip()
        points = [(float(at) - start, float(value)) for at, value in series["values"]]
        drawn.append((legend, [at for at, _ in points], [value for _, value in points]))
    return sorted(drawn)


def draw_lines(axes: Axes, panel: dict[str, Any], series: list[Any], end_s: float) -> None:
    """Draw a time series panel: lines, or stacked areas."""
    custom = panel["fieldConfig"]["defaults"]["custom"]
    colours = {
        override["matcher"]["options"]: override["properties"][0]["value"]["fixedColor"]
        for override in panel["fieldConfig"]["overrides"]
    }
    if custom.get("stacking"):
        grid = np.arange(0, end_s, 2.0)
        rows = [
            np.nan_to_num(np.interp(grid, at, value, left=0, right=0)) for _, at, value in series
        ]
        fills = [colours.get(name) for name, _, _ in series]
        axes.stackplot(
            grid,
            *rows,
            labels=[name for name, _, _ in series],
            colors=fills if all(fills) else None,
            alpha=0.85,
        )
    else:
        for name, at, value in series:
            axes.plot(at, value, label=name, color=colours.get(name), linewidth=1.1)
    for step in _thresholds(panel):
        if "thresholdsStyle" in custom and step["value"]:
            axes.axhline(step["value"], color=NAMED[step["color"]], linewidth=0.8, linestyle="--")
    axes.set_xlim(0, end_s)
    # Leave room for the legend above the highest value.
    axes.set_ylim(0, 1.25 * axes.get_ylim()[1])
    unit = panel["fieldConfig"]["defaults"]["unit"]
    if unit in ("bytes", "percentunit", "s"):
        axes.yaxis.set_major_formatter(lambda value, _: _with_unit(value, unit))
    if series:
        axes.legend(
            *(part[:MOST_LINES] for part in axes.get_legend_handles_labels()),
            fontsize=5,
            loc="upper left",
            frameon=False,
            labelcolor=INK,
        )


def draw_heatmap(axes: Axes, series: list[Any]) -> None:
    """Draw a heatmap panel: a column for each time, a row for each bucket that saw a request."""
    bounds = sorted((float(name), np.asarray(values)) for name, _, values in series)
    if not bounds or bounds[-1][1].max() == 0:
        return
    counts = np.diff([values for _, values in bounds], axis=0, prepend=0).clip(min=0)
    seen = np.flatnonzero(counts.sum(axis=1) > 0)
    counts = counts[seen[0] : seen[-1] + 1]
    axes.pcolormesh(np.asarray(series[0][1]), np.arange(len(counts)), counts, cmap="turbo")
    labels = [_with_unit(bound, "s") for bound, _ in bounds[seen[0] : seen[-1] + 1]]
    axes.set_yticks(range(0, len(labels), 3), labels[::3])
    axes.grid(visible=False)


def draw_stat(axes: Axes, panel: dict[str, Any], series: list[Any]) -> None:
    """Draw a single value: the last one, from the series with the latest value."""
    axes.set_axis_off()
    if not series:
        return
    name, _, values = max(series, key=lambda one: one[1][-1])
    shown = _with_unit(values[-1], panel["fieldConfig"]["defaults"]["unit"])
    colour, shown = _as_told(panel, values[-1], shown)
    mode = panel["options"]["textMode"]
    text = {"name": name, "value_and_name": f"{name}\n{shown}"}.get(mode, shown)
    size = 8 if mode == "name" else 13
    axes.text(0.5, 0.45, text, color=colour, fontsize=size, ha="center", va="center", wrap=True)


def _thresholds(panel: dict[str, Any]) -> list[dict[str, Any]]:
    thresholds = panel["fieldConfig"]["defaults"].get("thresholds", {"steps": []})
    steps: list[dict[str, Any]] = thresholds["steps"]
    return steps


def _as_told(panel: dict[str, Any], value: float, shown: str) -> tuple[str, str]:
    """The colour and the text of a value, by the panel's thresholds and mappings."""
    colour = NAMED["green"]
    for step in _thresholds(panel):
        if step["value"] is None or value >= step["value"]:
            colour = NAMED.get(step["color"], INK)
    for mapping in panel["fieldConfig"]["defaults"].get("mappings", []):
        told = mapping["options"].get(f"{value:g}")
        if mapping["type"] == "value" and told:
            return NAMED.get(told.get("color"), colour), told["text"]
    return colour, shown


def _with_unit(value: float, unit: str) -> str:
    match unit:
        case "s":
            return f"{value * 1000:.3g} ms" if value < 1 else f"{value:.3g} s"
        case "percentunit":
            return f"{value:.0%}"
        case "reqps":
            return f"{value:.3g} req/s"
        case "bytes":
            return f"{value / 2**20:.3g} MiB"
        case _:
            return f"{value:.3g}"


def draw(prometheus: Prometheus, start: float, end: float, output: Path) -> None:
    """Draw the whole dashboard, laid out as its file says."""
    (dashboard,) = DASHBOARDS
    everything = panels(dashboard)
    rows = max(panel["gridPos"]["y"] + panel["gridPos"]["h"] for panel in everything)
    figure = plt.figure(figsize=(13, rows * 0.29), facecolor=PAPER, dpi=80)
    grid = figure.add_gridspec(rows, 24, wspace=0.8, left=0.03, right=0.99, top=0.985, bottom=0.01)
    for panel in everything:
        at = panel["gridPos"]
        # A free line below each panel, and a column before it, hold the numbers of the axes.
        height = max(1, at["h"] - 2)
        top = at["y"] + (at["h"] > 1)
        left = at["x"] + (at["x"] > 0)
        axes = figure.add_subplot(grid[top : top + height, left : at["x"] + at["w"]])
        axes.set_facecolor(PAPER)
        axes.set_prop_cycle(color=CLASSIC)
        axes.set_title(panel["title"], color=INK, fontsize=7, loc="left", pad=3)
        axes.tick_params(colors=INK, labelsize=5, length=0)
        axes.grid(color=GRID, linewidth=0.5)
        for spine in axes.spines.values():
            spine.set_visible(False)
        if panel["type"] == "row":
            axes.set_axis_off()
            axes.title.set(fontweight="bold", fontsize=8)
            continue
        if panel["type"] == "alertlist":
            axes.set_axis_off()
            axes.text(0.5, 0.5, "Grafana's own list", color=INK, fontsize=7, ha="center")
            continue
        series = [
            one for target in panel["targets"] for one in series_of(prometheus, target, start, end)
        ]
        if panel["type"] == "stat":
            draw_stat(axes, panel, series)
        elif panel["type"] == "heatmap":
            draw_heatmap(axes, series)
        else:
            draw_lines(axes, panel, series, end - start)
        if not series:
            axes.text(
                0.5, 0.5, "no data", transform=axes.transAxes, color=INK, fontsize=7, ha="center"
            )
    figure.savefig(output, facecolor=PAPER)
    with Image.open(output) as picture:
        picture.convert("RGB").quantize(64).save(output, optimize=True)


def main() -> None:
    """Send the load, then draw."""
    parser = argparse.ArgumentParser(description=__doc__)
    parser.add_argument("server", help="address of a running server")
    parser.add_argument("output", type=Path, help="a PNG")
    parser.add_argument("--step-s", type=float, default=30, help="length of each step of the load")
    arguments = parser.parse_args()
    with tempfile.TemporaryDirectory() as folder:
        prometheus = Prometheus(arguments.server.removeprefix("http://"), Path(folder))
        try:
            start = time.time()
            ramp(arguments.server, arguments.step_s)
            draw(prometheus, start, time.time(), arguments.output)
        finally:
            prometheus.close()


if __name__ == "__main__":
    main()
