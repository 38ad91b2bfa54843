"""Two replicas under Ray Serve on this machine; run as a program that serves until its input ends.

It prints the id of each replica's process, and the port, when both answer.
"""

import logging
import os
import sys

PORT_ARGUMENT, REPLICAS, CPUS = 1, 2, 3


def main() -> None:
    os.environ.update(RAY_worker_niceness="0", RAY_AUTH_MODE="disabled")
    import ray  # noqa: PLC0415 - an extra
    from ray import serve  # noqa: PLC0415

    from yolox_serve.cluster.serving import ServeOptions, serve_application  # noqa: PLC0415

    port = int(sys.argv[PORT_ARGUMENT])
    ray.init(num_cpus=CPUS, include_dashboard=False, logging_level=logging.ERROR)
    serve.start(http_options={"host": "127.0.0.1", "port": port, "request_timeout_s": 60})
    options = ServeOptions(
        min_replicas=REPLICAS,
        max_replicas=REPLICAS,
        settings={"device": "cpu", "log_format": "json", "request_timeout_ms": 50_000},
    )
    serve.run(serve_application(options))
    sys.stdout.write("ready\n")
    sys.stdout.flush()
    sys.stdin.read()


if __name__ == "__main__":
    main()
