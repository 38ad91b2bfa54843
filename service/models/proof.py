"""The proof that a model which is loaded beside others can answer requests."""

import cv2
import numpy as np

from service.core.contract import ModelContract
from service.engine.base import Engine, Pixels, grey
from service.errors import StartupError


def prove(engine: Engine, name: str) -> None:
    """Run a grey and a drawn image, and see that all rows are finite.

    Args:
        engine: The loaded engine.
        name: The model, to name it in errors.

    Raises:
        StartupError: The model cannot run, or gives values that are no numbers.
    """
    for image in (grey(engine.contract, _size(engine.contract))[0], _drawn(engine.contract)):
        try:
            raw = engine.infer([image])
        except Exception as error:  # the runtimes' errors share no base of their own
            raise StartupError(f"{name}: the model cannot run: {error}") from error
        if not np.isfinite(raw).all():
            raise StartupError(f"{name}: the model's output holds infinite or NaN values")


def change_of_classes(old: tuple[str, ...], new: tuple[str, ...]) -> str:
    """How the class names of two versions differ, in words; empty if they do not."""
    if old == new:
        return ""
    gone = [name for name in old if name not in new]
    added = [name for name in new if name not in old]
    parts = [f"without {', '.join(gone[:5])}"] * bool(gone)
    parts += [f"with {', '.join(added[:5])}"] * bool(added)
    return f"the class names changed: {'; '.join(parts) or 'another order'}"


def _size(contract: ModelContract) -> tuple[int, int]:
    return contract.input.height, contract.input.width


def _drawn(contract: ModelContract) -> Pixels:
    """An image (H, W, 3) uint8 with edges and all colours, as a network input."""
    height, width = _size(contract)
    across = np.linspace(0, 255, width, dtype=np.float32)[None, :].repeat(height, 0)
    down = np.linspace(0, 255, height, dtype=np.float32)[:, None].repeat(width, 1)
    image = np.ascontiguousarray(np.stack([across, down, 255 - across], 2).astype(np.uint8))
    cv2.rectangle(image, (width // 4, height // 4), (width // 2, height // 2), (0, 0, 255), -1)
    cv2.circle(image, (2 * width // 3, 2 * height // 3), height // 6, (0, 255, 0), -1)
    return image
