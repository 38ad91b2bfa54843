"""nginx and haproxy before several servers, as plain users run them."""

import os
from collections.abc import Iterator, Sequence
from contextlib import closing, contextmanager
from pathlib import Path
from typing import Final

from benchmarks.qa.rig.programs import LIBRARIES, Program, find_program, free_port

# Folders that nginx would otherwise look for where its package puts them.
TEMPORARY: Final = "\n".join(
    f"  {kind}_temp_path {kind};" for kind in ("client_body", "proxy", "fastcgi", "uwsgi", "scgi")
)
NGINX: Final = """pid nginx.pid;
events {{}}
http {{
{temporary}
  access_log off;
  upstream service {{
{servers}
  }}
  server {{
    listen 127.0.0.1:{port};
    location / {{ proxy_pass http://service; }}
  }}
}}
"""
HAPROXY: Final = """defaults
  mode http
  timeout connect 5s
  timeout client 30s
  timeout server 30s
  option httpchk GET /health/ready
frontend all
  bind 127.0.0.1:{port}
  default_backend service
backend service
{servers}
"""


def nginx(folder: Path, services: Sequence[Program], options: str = "") -> Program:
    """An nginx with its defaults, not started yet.

    Args:
        folder: Where its files go.
        services: The servers.
        options: Parameters of each server in nginx's configuration; none are the defaults.
    """
    servers = "\n".join(f"    server {each.host}:{each.port} {options};" for each in services)
    port = free_port()
    config = folder / "nginx.conf"
    config.write_text(NGINX.format(temporary=TEMPORARY, servers=servers, port=port))
    return nginx_program(find_program("nginx"), config, folder, port)


def haproxy(folder: Path, services: Sequence[Program], options: str = "") -> Program:
    """A haproxy that asks each server whether it is ready; parameters are those of `nginx`."""
    port = free_port()
    servers = "\n".join(
        f"  server {each.host} {each.host}:{each.port} check {options}".rstrip()
        for each in services
    )
    config = folder / "haproxy.cfg"
    config.write_text(HAPROXY.format(port=port, servers=servers))
    # Debian's package leaves libraries to others, which make unpacks beside it.
    libraries = os.pathsep.join(map(str, LIBRARIES))
    command = [str(find_program("haproxy")), "-db", "-f", str(config)]
    return Program(command, port, folder / "haproxy.log", {"LD_LIBRARY_PATH": libraries})


def nginx_program(program: Path, config: Path, folder: Path, port: int) -> Program:
    """An nginx with a configuration of its own, not started yet.

    Args:
        program: Its binary.
        config: The configuration.
        folder: Where paths of the configuration begin, and its log goes.
        port: Where it listens.
    """
    # Started by root, nginx would become a user who cannot read the folder.
    user = "user root root; " if os.getuid() == 0 else ""
    command = [str(program), "-p", f"{folder}/", "-c", str(config), "-e", "stderr"]
    return Program([*command, "-g", f"{user}daemon off;"], port, folder / "nginx.log")


@contextmanager
def up(balancer: Program) -> Iterator[Program]:
    """A balancer that accepts connections, for the length of a trial."""
    with closing(balancer):
        balancer.start()
        balancer.wait_until_up()
        yield balancer
