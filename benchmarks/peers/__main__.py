"""Compares this server with the servers that people would use instead.

    python -m benchmarks.peers [--model FILE.onnx] [--photos FOLDER] [--peers mosec,fastapi]
                               [--rounds 5] [--seconds 10] [--concurrency 1,8,32]

Any model file with a contract will do. The peers get the same network in the form that their users
have. That form is made from the file, and must give the same rows.

Each peer has an environment of its own (made once, in runs/peers) with pinned packages. First all
servers must find the same boxes. Then, in each round, each server is started, warmed up, loaded by
wrk on this machine with a number of requests in flight, and stopped, so that no server takes CPU
time from another. Needs Linux, wrk, and the extras `cpu`, `train` (for the plot) and `evaluate`.
"""

import signal
import sys

from benchmarks.peers.arguments import read_arguments
from benchmarks.peers.comparison import run_comparison
from benchmarks.peers.outcome.plot import draw_latencies
from benchmarks.peers.outcome.report import to_json, to_markdown
from model_export.errors import ModelExportError
from service.observe.logs import configure_logs


def main() -> None:
    """Compare, and write the results."""
    arguments = read_arguments()
    configure_logs("console", "warning")
    # Otherwise the servers would outlive this process.
    signal.signal(signal.SIGTERM, lambda *_: sys.exit("error: ended by SIGTERM"))
    try:
        report = run_comparison(arguments, _say)
    except ModelExportError as error:
        raise SystemExit(f"error: {error}") from error
    output = arguments.output
    (output / "peers.json").write_text(to_json(report))
    (output / "peers.md").write_text(to_markdown(report))
    if report.runs:
        draw_latencies(report.runs, report.titles, output / "peers.png")
    print(f"\n{to_markdown(report)}")
    _say(f"written to {output}/peers.md, .json and .png")


def _say(line: str) -> None:
    print(line, file=sys.stderr, flush=True)


if __name__ == "__main__":
    main()
