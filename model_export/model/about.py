"""The description that a checkpoint carries, so that no command has to be told."""

import json
from collections.abc import Mapping
from dataclasses import dataclass
from pathlib import Path
from typing import Any, Final, Self

import torch
from pydantic import TypeAdapter, ValidationError

from model_export.errors import ModelExportError
from model_export.model.variants import HeadKind, Variant
from service.core.contract import METADATA_KEY, ContractError, ModelContract

# The entry of a checkpoint; a JSON text, which torch loads with `weights_only`.
KEY: Final = "about"


@dataclass(frozen=True, slots=True)
class About:
    """The network that weights belong to.

    Attributes:
        variant: Its variant.
        head: Its head.
        contract: Class names, size, box coding and recommended thresholds.
        metrics: COCO metrics on the validation data, 0 to 1; empty if they were not measured.
    """

    variant: Variant
    head: HeadKind
    contract: ModelContract
    metrics: Mapping[str, float | None]

    def to_json(self) -> str:
        """This as a JSON object."""
        fields = {
            "variant": self.variant,
            "head": self.head,
            "contract": self.contract.to_metadata()[METADATA_KEY],
            "metrics": dict(self.metrics),
        }
        return json.dumps(fields, ensure_ascii=False)

    @classmethod
    def from_json(cls, text: str) -> Self:
        """Read what `to_json` wrote.

        Raises:
            ValueError: The text is something else.
        """
        fields = _FIELDS.validate_json(text)
        return cls(
            variant=_VARIANT.validate_python(fields["variant"]),
            head=_HEAD.validate_python(fields["head"]),
            contract=ModelContract.from_metadata({METADATA_KEY: str(fields["contract"])}),
            metrics=_METRICS.validate_python(fields["metrics"]),
        )


def read_about(path: Path) -> About | None:
    """The description that a checkpoint carries; None if it has none, as released files do.

    Raises:
        ModelExportError: It says something that this release does not understand.
    """
    try:
        content = torch.load(path, map_location="cpu", weights_only=True, mmap=True)
    except Exception:  # noqa: BLE001 - other kinds of file; whoever reads the weights says what is wrong
        return None
    text = content.get(KEY) if isinstance(content, dict) else None
    if not isinstance(text, str):
        return None
    try:
        return About.from_json(text)
    except (ContractError, ValidationError, KeyError) as error:
        why = str(error)
        if isinstance(error, ValidationError):
            why = f"{error.errors()[0]['input']!r} is none of its values"
        raise ModelExportError(
            f"{path} describes its network in a way that this release does not know: {why}"
        ) from error


_FIELDS: Final = TypeAdapter(dict[str, Any])
_VARIANT: Final[TypeAdapter[Variant]] = TypeAdapter(Variant)
_HEAD: Final[TypeAdapter[HeadKind]] = TypeAdapter(HeadKind)
_METRICS: Final = TypeAdapter(dict[str, float | None])
