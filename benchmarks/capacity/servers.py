"""The CPU time of the servers, read from their `/metrics`."""

import urllib.request
from collections.abc import Sequence
from dataclasses import dataclass
from typing import Final

from prometheus_client.parser import text_string_to_metric_families

TIMEOUT_S: Final = 10.0
# Servers may count this part fewer or more images than were sent: probes, other users.
TOLERANCE: Final = 0.1


@dataclass(frozen=True, slots=True)
class Spent:
    """Work of the servers since they started.

    Attributes:
        cpu_s: CPU time, in seconds.
        images: Images that were answered.
    """

    cpu_s: float
    images: float


def spent_in(text: str) -> Spent:
    """The work that a server's metrics tell of.

    Args:
        text: The metrics in Prometheus's text format.

    Raises:
        ValueError: It is another format.
    """
    cpu_s = images = 0.0
    for family in text_string_to_metric_families(text):
        for sample in family.samples:
            if sample.name == "process_cpu_seconds_total":
                cpu_s += sample.value
            elif sample.name == "yolox_images_total":
                images += sample.value
    return Spent(cpu_s, images)


def spent_by(addresses: Sequence[str]) -> Spent:
    """The work of several servers together.

    Args:
        addresses: The address of each server's metrics.

    Raises:
        OSError: A server does not answer.
        ValueError: It answers something else than metrics.
    """
    each = [spent_in(_text_at(address)) for address in addresses]
    return Spent(sum(one.cpu_s for one in each), sum(one.images for one in each))


def cpu_ms_of_image(before: Spent, after: Spent, answered: int) -> float | None:
    """CPU time of an image, in ms.

    Args:
        before: Their work until before.
        after: Their work until now.
        answered: Number of images that were answered meanwhile, as the client counted.

    Returns:
        None if the servers counted another number: the metrics are not those of all servers.
    """
    images = after.images - before.images
    if not answered or abs(images - answered) > TOLERANCE * answered + 1:
        return None
    return 1000 * (after.cpu_s - before.cpu_s) / images


def _text_at(address: str) -> str:
    with urllib.request.urlopen(address, timeout=TIMEOUT_S) as answer:  # noqa: S310 - given by the user
        text: str = answer.read().decode()
        return text
