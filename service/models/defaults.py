"""The options of a request that names none, and where each comes from."""

import dataclasses
from typing import Final, Literal

from service.core.contract import ModelContract
from service.core.suppress import DetectionOptions, with_recommended
from service.errors import StartupError
from service.settings import Settings

Origin = Literal["setting", "model", "article"]
OPTION_SETTINGS: Final = ("confidence", "score_by", "nms", "iou", "sigma", "class_agnostic")


def default_origins(settings: Settings, contract: ModelContract) -> dict[str, Origin]:
    """Where the default of each option comes from: a setting, the model, or the article."""

    def origin(name: str) -> Origin:
        if getattr(settings, name) is not None:
            return "setting"
        return "article" if getattr(contract.recommended, name) is None else "model"

    return {name: origin(name) for name in OPTION_SETTINGS}


def default_options(settings: Settings, contract: ModelContract) -> DetectionOptions:
    """The options of a request that names none: settings, the model's advice, or the article's."""
    article = DetectionOptions(
        max_candidates=settings.max_candidates, max_detections=settings.max_detections
    )
    advised = with_recommended(article, contract.recommended)
    chosen = {name: getattr(settings, name) for name in OPTION_SETTINGS}
    return dataclasses.replace(
        advised, **{name: value for name, value in chosen.items() if value is not None}
    )


def see_default(settings: Settings, name: str) -> None:
    """See that requests which name no model can go to the default, where there is one model only.

    Raises:
        StartupError: The default is another.
    """
    if settings.models is None and settings.default_model not in (None, "", name):
        raise StartupError(
            f"there is no model {settings.default_model!r}, for default_model chooses among "
            f"several, and the only one is {name!r}; name their folder with models, or leave "
            "default_model out"
        )
