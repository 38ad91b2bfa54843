"""The models that calls name."""

from dataclasses import dataclass

from service.core.suppress import DetectionOptions
from service.errors import NotFoundError
from service.http.running import Running
from service.pipeline.detector import Detector


@dataclass(frozen=True, slots=True)
class Served:
    """A model as calls see it.

    Attributes:
        name: Its name.
        version: Its version.
        versions: All versions that a call may name.
        provider: The execution provider that it really runs on.
        detector: From the bytes of images to their boxes.
        defaults: The options of a call that has none.
    """

    name: str
    version: str
    versions: tuple[str, ...]
    provider: str
    detector: Detector
    defaults: DetectionOptions

    @property
    def id(self) -> tuple[str, str]:
        """Name and version."""
        return self.name, self.version


@dataclass(frozen=True, slots=True)
class Listed:
    """A line of the index of models.

    Attributes:
        name: The model's name.
        version: One of its versions.
        state: `READY`, `LOADING` or `UNAVAILABLE`.
        reason: Why it is not ready, if it is not.
    """

    name: str
    version: str
    state: str
    reason: str


def pick(running: Running, name: str, version: str | None) -> Served:
    """The model that a call names.

    Args:
        running: The parts of the server.
        name: The model's name.
        version: The version, or None for the one that the server chooses.

    Raises:
        NotFoundError: There is none.
    """
    model = running.model
    if name != model.name or version not in (None, "", model.version):
        wanted = f"{name!r:.80}" + (f" with version {version!r:.40}" if version else "")
        raise NotFoundError(f"there is no model {wanted}; POST /v2/repository/index lists them")
    return Served(
        name=model.name,
        version=model.version,
        versions=(model.version,),
        provider=model.provider,
        detector=running.detector,
        defaults=running.defaults,
    )


def listing(running: Running) -> list[Listed]:
    """Every model that the server knows."""
    reason = running.detector.unready_reason()
    state = "READY" if reason is None else "UNAVAILABLE"
    return [Listed(running.model.name, running.model.version, state, reason or "")]
