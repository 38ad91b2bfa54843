"""The arithmetic of a plan: from what one replica can do to what a load needs.

    python -m benchmarks.capacity.plan --replica-rate 38 --cpu-ms 45

It prints the table of docs/capacity.md. Comments say what each constant assumes.
"""

import argparse
import math
from collections.abc import Sequence
from dataclasses import dataclass
from typing import Final

S_OF_HOUR: Final = 3600
# Part of its greatest rate to which a replica is loaded, so that bursts and a lost replica fit in.
HEADROOM: Final = 0.7
# Replicas beyond those that the load needs: one may be lost while another is replaced.
SPARE: Final = 1
LOADS: Final = (10, 100, 1000, 10_000)


@dataclass(frozen=True, slots=True)
class Measured:
    """Measurements of one replica and of the balancer.

    Attributes:
        replica_rate: The greatest rate of a replica within the objective, in images a second.
        cpu_ms: CPU time of an image in the replica, in ms.
        balancer_cpu_ms: CPU time of a request in the balancer, in ms.
        request_bytes: Bytes of a request and its answer on the wire.
        series: Prometheus series of a replica.
        image_bytes: Size of the container image, compressed, as it is pulled.
    """

    replica_rate: float
    cpu_ms: float
    balancer_cpu_ms: float
    request_bytes: float
    series: int
    image_bytes: float


@dataclass(frozen=True, slots=True)
class Site:
    """Limits of the machines around the replicas; the defaults are assumptions, not measurements.

    Attributes:
        balancer_cpus: CPUs of one balancer.
        link_bits_s: Speed of the balancer's network, in bits a second.
        registry_bits_s: Speed at which the registry sends images, in bits a second.
        replicas_of_node: Replicas on one node; a node pulls the image once.
        pull_limit_s: Longest time in which a scale-up may pull the image, in seconds.
        prometheus_series: Series that one Prometheus holds: two million take about 8 GiB.
    """

    balancer_cpus: float = 4
    link_bits_s: float = 10e9
    registry_bits_s: float = 5e9
    replicas_of_node: int = 8
    pull_limit_s: float = 300
    prometheus_series: int = 2_000_000


@dataclass(frozen=True, slots=True)
class Need:
    """The needs of a load.

    Attributes:
        load: Images a second.
        replicas: Number of replicas, the spare one included.
        cpus: CPUs that compute, of the replicas together.
        balancer_cpus: CPUs of the balancer.
        link_bits_s: Bits a second through the balancer.
        pull_s: Time in which all nodes have the container image, in seconds.
        series: Prometheus series.
        shares: For each shared part the share of it that the load takes; above 1, one is too few.
    """

    load: float
    replicas: int
    cpus: float
    balancer_cpus: float
    link_bits_s: float
    pull_s: float
    series: int
    shares: dict[str, float]

    @property
    def tightest(self) -> str:
        """The shared part that breaks first as the load grows."""
        return max(self.shares, key=lambda name: self.shares[name])


def replicas_for(load: float, replica_rate: float, headroom: float = HEADROOM) -> int:
    """Number of replicas for a load, the spare one included.

    Args:
        load: Images a second.
        replica_rate: The greatest rate of a replica within the objective.
        headroom: Part of that rate to which a replica is loaded.

    Raises:
        ValueError: No replica can do anything within the objective.
    """
    if replica_rate <= 0 or headroom <= 0:
        raise ValueError("a replica that meets the objective at no rate cannot be planned with")
    return max(1, math.ceil(load / (replica_rate * headroom))) + SPARE


def images_per_core_hour(cpu_ms: float) -> float:
    """Images that a CPU computes in an hour.

    Args:
        cpu_ms: CPU time of an image, in ms.
    """
    return S_OF_HOUR * 1000 / cpu_ms


def need_of(load: float, measured: Measured, site: Site) -> Need:
    """The needs of a load, of everything that the replicas share."""
    replicas = replicas_for(load, measured.replica_rate)
    nodes = math.ceil(replicas / site.replicas_of_node)
    balancer_cpus = load * measured.balancer_cpu_ms / 1000
    link_bits_s = load * measured.request_bytes * 8
    pull_s = nodes * measured.image_bytes * 8 / site.registry_bits_s
    series = replicas * measured.series
    return Need(
        load,
        replicas,
        load * measured.cpu_ms / 1000,
        balancer_cpus,
        link_bits_s,
        pull_s,
        series,
        {
            "balancer's CPUs": balancer_cpus / site.balancer_cpus,
            "balancer's network": link_bits_s / site.link_bits_s,
            "registry": pull_s / site.pull_limit_s,
            "Prometheus": series / site.prometheus_series,
        },
    )


def table(needs: Sequence[Need]) -> str:
    """Needs as a table in Markdown."""
    lines = [
        "| images/s | replicas | busy CPUs | balancer CPUs | Gbit/s | pull | series | tightest |",
        "| ---: | ---: | ---: | ---: | ---: | ---: | ---: | --- |",
    ]
    lines += [
        f"| {need.load:,.0f} | {need.replicas:,} | {need.cpus:,.1f} | {need.balancer_cpus:.2f} "
        f"| {need.link_bits_s / 1e9:.2f} | {need.pull_s:,.0f} s | {need.series:,} "
        f"| {need.tightest} ({need.shares[need.tightest]:.1%}) |"
        for need in needs
    ]
    return "\n".join(lines)


def main(words: Sequence[str] | None = None) -> int:
    """Print the table; gives the exit code."""
    parser = argparse.ArgumentParser(description=__doc__.splitlines()[0])
    parser.add_argument("--replica-rate", type=float, required=True, help="images a second")
    parser.add_argument("--cpu-ms", type=float, required=True, help="CPU time of an image")
    parser.add_argument("--balancer-cpu-ms", type=float, default=0.5, help="of a request")
    parser.add_argument("--request-bytes", type=float, default=71_000, help="with its answer")
    parser.add_argument("--series", type=int, default=300, help="Prometheus series of a replica")
    parser.add_argument("--image-bytes", type=float, default=220e6, help="size of the image")
    parser.add_argument("--loads", type=float, nargs="+", default=LOADS, help="images a second")
    given = vars(parser.parse_args(words))
    loads = given.pop("loads")
    measured = Measured(**given)
    print(table([need_of(load, measured, Site()) for load in loads]))
    return 0


if __name__ == "__main__":
    raise SystemExit(main())
