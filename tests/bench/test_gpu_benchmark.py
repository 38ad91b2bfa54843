"""The benchmark of GPUs, where there is none."""

import re
import subprocess
import sys

import pytest

from support.project import ROOT


@pytest.mark.heavy
def test_every_way_to_the_model_is_measured_and_compared_with_the_first() -> None:
    model = ROOT / "service" / "models" / "barcodes.onnx"
    arguments = ["--model", model, "--device", "cpu", "--batch", "2", "--workers", "1"]
    arguments += ["--connections", "2", "--seconds", "2"]
    done = subprocess.run(
        [sys.executable, ROOT / "benchmarks" / "gpu.py", *arguments],
        capture_output=True,
        text=True,
        check=False,
    )
    assert done.returncode == 0, done.stderr
    ways = re.findall(r"^batch +(\d+)  (\S.*?) +(\d+) images/s", done.stdout, re.MULTILINE)
    names = ["session.run", "engine, 1 at once", "engine, 2 at once"]
    assert [(count, name) for count, name, _ in ways] == [(n, name) for n in "12" for name in names]
    (served,) = re.findall(r"c=2 +(\d+) images/s .* ([\d.]+) of session.run", done.stdout)
    limit = next(int(rate) for count, name, rate in ways if (count, name) == ("2", names[0]))
    # All three are rounded.
    ratio = int(served[0]) / limit
    assert float(served[1]) == pytest.approx(ratio, abs=0.01 + (0.5 + 0.5 * ratio) / limit)
    assert "images a batch" in done.stdout
