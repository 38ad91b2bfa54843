"""The names and numbers of the losses; without torch, so that the command line starts at once."""

from typing import Final, Literal, get_args

PresetName = Literal["article", "yolox"]
PRESET_NAMES: Final[tuple[PresetName, ...]] = get_args(PresetName)

# In strides, as in the released code. The paper's text has 2.5, or anywhere inside the box.
CENTER_RADIUS: Final = 1.5
