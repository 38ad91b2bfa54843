"""The application of `serve.yaml`: Ray Serve imports it by name, and calls it with the `args`."""

from typing import Any

from yolox_serve.cluster.serving import ServeOptions, serve_application


def application(args: ServeOptions) -> Any:  # noqa: ANN401 - Ray's
    """Replicas of the server, with autoscaling on the requests that wait in them."""
    return serve_application(args)
