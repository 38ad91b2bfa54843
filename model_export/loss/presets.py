"""The names and numbers of the losses; no torch, so that the command line need not wait for it."""

from typing import Final, Literal, get_args

PresetName = Literal["article", "yolox"]
PRESET_NAMES: Final[tuple[PresetName, ...]] = get_args(PresetName)

# In strides. The paper's text has 2.5, or anywhere inside the box; the released code has this.
CENTER_RADIUS: Final = 1.5
