"""The edge of the compose file, nginx with the files of docker/edge, on this machine."""

from pathlib import Path
from typing import Final

from benchmarks.qa.rig.balancers import nginx_program
from benchmarks.qa.rig.programs import Program, find_recent_nginx, free_port

CONFIG: Final = Path(__file__).parents[3] / "docker" / "edge"


def edge(
    folder: Path,
    servers_port: int,
    names_port: int,
    *,
    certificates: Path | None = None,
    changes: dict[str, str] | None = None,
) -> Program:
    """The edge, not started yet; only addresses, ports and paths are those of this machine.

    Args:
        folder: Where its files go.
        servers_port: Where every server listens, each on an address of its own.
        names_port: Where a DNS server listens that knows these addresses.
        certificates: A folder with `tls.crt` and `tls.key`, to serve TLS.
        changes: Texts of the configuration, and what replaces each.

    Raises:
        MissingProgramError: There is no nginx that resolves names again.
        ValueError: A text is not in the configuration.
    """
    port = free_port()
    replaced = {
        "listen 8080": f"listen 127.0.0.1:{port}",
        "127.0.0.1:8081": f"127.0.0.1:{free_port()}",
        "resolver 127.0.0.11 valid=5s": f"resolver 127.0.0.1:{names_port} valid=1s",
        "service:8000": f"service:{servers_port}",
        "/tmp/": f"{folder}/",  # noqa: S108 - the container's
        "/certificates/": f"{certificates}/",
        "/dev/stdout": f"{folder}/access.log",
        **(changes or {}),
    }
    texts = {path.name: path.read_text() for path in CONFIG.glob("*.conf")}
    for old, new in replaced.items():
        if not any(old in text for text in texts.values()):
            raise ValueError(f"docker/edge has no {old!r}")
        texts = {name: text.replace(old, new) for name, text in texts.items()}
    target = folder / "edge"
    target.mkdir()
    for name, text in texts.items():
        (target / name).write_text(text)
    config = target / ("http.conf" if certificates is None else "https.conf")
    return nginx_program(find_recent_nginx(), config, folder, port)
