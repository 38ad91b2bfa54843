#!/usr/bin/env python3
"""Exit with 0 if the server of this container is ready; else print the reason and exit with 1."""

import http.client
import os
import socket
import sys


def main() -> str | None:
    """Ask the server; return the problem, or None."""
    port = int(os.environ.get("YOLOX_PORT", "8000"))
    path = os.environ.get("YOLOX_UNIX_SOCKET")
    connection = http.client.HTTPConnection("127.0.0.1", port, timeout=3)
    try:
        if path:
            connection.sock = socket.socket(socket.AF_UNIX)
            connection.sock.settimeout(3)
            connection.sock.connect(path)
        connection.request("GET", "/health/ready")
        response = connection.getresponse()
        body = response.read().decode(errors="replace")
    except (OSError, http.client.HTTPException) as error:
        return f"no answer on {path or f'port {port}'}: {error}"
    return None if response.status == http.HTTPStatus.OK else f"{response.status}: {body}"


if __name__ == "__main__":
    sys.exit(main())
