"""The memory that tensors of a computation take."""

import weakref
from collections.abc import Callable
from typing import Any

from torch import Tensor
from torch.utils._python_dispatch import TorchDispatchMode
from torch.utils._pytree import tree_leaves


class TensorMemory(TorchDispatchMode):
    """Counts the bytes of storages that operations make; `peak` is the most that lived at once."""

    def __init__(self) -> None:
        super().__init__()
        self.peak = 0
        self._living: dict[int, int] = {}

    def __torch_dispatch__(
        self,
        func: Callable[..., object],
        types: object,
        args: tuple[object, ...] = (),
        kwargs: dict[str, Any] | None = None,
    ) -> object:
        result = func(*args, **(kwargs or {}))
        given = {
            self._key(leaf) for leaf in tree_leaves((args, kwargs)) if isinstance(leaf, Tensor)
        }
        for made in tree_leaves(result):
            if isinstance(made, Tensor) and self._key(made) not in given:
                self._count(made)
        return result

    @staticmethod
    def _key(tensor: Tensor) -> int:
        return tensor.untyped_storage()._cdata

    def _count(self, made: Tensor) -> None:
        storage, key = made.untyped_storage(), self._key(made)
        if key in self._living:
            return
        self._living[key] = storage.nbytes()
        weakref.finalize(storage, self._living.pop, key, None)
        self.peak = max(self.peak, sum(self._living.values()))
