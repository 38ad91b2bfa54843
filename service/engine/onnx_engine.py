"""Running a model with ONNX Runtime, on the provider that was asked for or not at all."""

import itertools
from collections.abc import Sequence
from dataclasses import dataclass
from pathlib import Path
from types import ModuleType
from typing import Any, Final, Protocol

import numpy as np
import structlog
from numpy.typing import NDArray

from service.core.contract import ModelContract
from service.core.input_tensor import pack_images
from service.engine.contract_check import HALF, ONNX_DTYPES, read_contract
from service.engine.cuda_runtime import sleep_while_waiting
from service.engine.host_memory import HostMemory, page_locker
from service.engine.onnx_sessions import (
    ASKED_PROVIDER,
    CPU,
    CUDA,
    ON_CPU,
    TENSORRT,
    Providers,
    Session,
    choose_providers,
    import_runtime,
    open_session,
    share_out,
    tensorrt_options,
)
from service.engine.openvino import OPENVINO, add_openvino, openvino_options
from service.errors import StartupError
from service.settings import Device

Pixels = NDArray[np.uint8]
RawRows = NDArray[np.floating]

GPU_BATCH: Final = 16

log = structlog.get_logger(__name__)


class Engine(Protocol):
    """What the batcher needs of a model; several threads may call `infer` at once."""

    @property
    def contract(self) -> ModelContract:
        """What the model promises."""

    @property
    def provider(self) -> str:
        """The execution provider the model really runs on."""

    @property
    def wanted_provider(self) -> str:
        """The one that it was to run on, as far as the runtime has it."""

    @property
    def max_batch(self) -> int:
        """Most images of one call."""

    @property
    def spans(self) -> Sequence[int]:
        """How many instances' shares of the CPU one call can use, ascending from 1."""

    def infer(self, images: Sequence[Pixels], span: int = 1) -> RawRows:
        """Run N (H, W, 3) uint8 BGR network inputs; gives (N, A, 4 + 1 + C) raw rows."""


@dataclass(frozen=True, slots=True)
class CpuShares:
    """How calls share the CPUs, where they are what computes.

    Attributes:
        threads: Of a call of span 1. One thread means the caller's own, so that concurrent calls
            run side by side on one copy of the weights.
        instances: Calls of span 1 that will be under way at once.
        spans: Multiples of `threads` that a call may ask for, ascending from 1; each beside 1 costs
            another copy of the weights.
    """

    threads: int = 1
    instances: int = 1
    spans: Sequence[int] = (1,)


class OnnxEngine:
    """A model file in ONNX Runtime.

    Args:
        path: An ONNX file with a contract.
        device: Where to run; `auto` takes CUDA where it works.
        shares: How calls on the CPU share it.
        max_batch: Most images of one call, unless the graph's batch is fixed (default: 16, and 1
            on the CPU, where an image of a batch takes longer than one alone).
        gpu_memory_limit_mb: Bound of the GPU arenas in MiB, shared out among the batch sizes.
        tensorrt_cache: Folder where TensorRT keeps the engines it builds.
    """

    def __init__(
        self,
        path: Path,
        *,
        device: Device = "auto",
        shares: CpuShares = CpuShares(),
        max_batch: int | None = None,
        gpu_memory_limit_mb: int | None = None,
        tensorrt_cache: Path | None = None,
    ) -> None:
        self._path = path
        self._device = device
        self._shares = shares
        self._most_images = max_batch
        self._gpu_memory_limit_mb = gpu_memory_limit_mb
        self._tensorrt_cache = tensorrt_cache

    def load(self) -> None:
        """Create the session, check it against its contract and see where it really runs.

        Raises:
            StartupError: No runtime, no such file, no or a wrong contract, or not the device that
                was asked for.
        """
        runtime = import_runtime()
        if self._device == "openvino":
            add_openvino(runtime)
        providers = choose_providers(
            self._device,
            runtime.get_available_providers(),
            gpu_memory_limit_mb=self._gpu_memory_limit_mb,
        )
        self._wanted_provider = providers[0][0]
        if self._wanted_provider == TENSORRT:
            providers[0] = (TENSORRT, self._tensorrt_options(runtime))
        if self._wanted_provider not in ON_CPU:
            # Finds the CUDA libraries that come as wheels, so that no system CUDA is needed.
            runtime.preload_dlls()
        session = self._open(runtime, providers, 1)
        self._provider: str = session.get_providers()[0]
        self._contract = read_contract(session, self._path)
        self._check_device()
        output = session.get_outputs()[0]
        self._output: str = output.name
        self._output_dtype = np.dtype(ONNX_DTYPES[output.type])
        self._sessions = {1: session}
        self._session_of_bucket = self._open_buckets(runtime)
        if self._provider in ON_CPU:
            self._memory = None
            for span in self._shares.spans[1:]:
                self._sessions[span] = self._open(runtime, providers, span)
        else:
            sleep_while_waiting()
            # Batches of a GPU are large, and copied there and back.
            self._memory = HostMemory(page_locker())

    def _open(self, runtime: ModuleType, providers: Providers, span: int) -> Session:
        """A session whose calls take the threads of so many instances."""
        threads = span * self._shares.threads
        if providers[0][0] == OPENVINO:
            # The threads are OpenVINO's, and ONNX Runtime has nothing to do for its own.
            options = openvino_options(
                calls=max(1, self._shares.instances // span), threads=threads
            )
            providers, threads = [(OPENVINO, options)], 1
        return open_session(runtime, self._path, providers, threads)

    def _open_buckets(self, runtime: ModuleType) -> dict[int, Session]:
        """On CUDA, a session for each batch size.

        Where sizes take turns in one, each turn has its convolutions planned anew, and a batch of
        32 that took an H100 11 ms takes it three seconds.
        """
        buckets = self._buckets()
        if self._provider != CUDA or len(buckets) == 1:
            return {}
        # Only what was learnt of it is needed from now on.
        self._sessions.clear()
        limits = share_out(self._gpu_memory_limit_mb, buckets, self._path)
        available, opened = runtime.get_available_providers(), dict[int, Session]()
        for bucket, limit in zip(buckets, limits, strict=True):
            providers = choose_providers("cuda", available, gpu_memory_limit_mb=limit)
            opened[bucket] = open_session(runtime, self._path, providers, self._shares.threads)
            found = opened[bucket].get_providers()[0]
            if found != CUDA:
                raise StartupError(
                    f"{self._path}: batches of {bucket} would run on {found}, and not on {CUDA}"
                )
        return opened

    def _tensorrt_options(self, runtime: ModuleType) -> dict[str, str]:
        """What the model is must be known before TensorRT builds anything for it."""
        session = open_session(runtime, self._path, [(CPU, {})], 1)
        return tensorrt_options(
            read_contract(session, self._path).input,
            half=session.get_outputs()[0].type == HALF,
            max_batch=self._most_images or GPU_BATCH,
            cache=self._tensorrt_cache,
        )

    def warm(self, sizes: Sequence[tuple[int, int]]) -> None:
        """Run every batch bucket at every (height, width) and span, so that no client waits.

        Raises:
            StartupError: The model cannot run, or gives an output that is not the promised one.
        """
        for (height, width), batch, span in itertools.product(sizes, self._buckets(), self.spans):
            images = np.full((batch, height, width, 3), self._contract.input.pad_value, np.uint8)
            try:
                if span == 1:
                    self._check_output(images)
                self.infer([*images], span)
            except StartupError:
                raise
            except Exception as error:  # ONNX Runtime's errors share no base of their own
                raise StartupError(f"{self._path}: the model cannot run: {error}") from error

    def _check_output(self, images: Pixels) -> None:
        """See what shape comes when none is asked for."""
        spec = self._contract.input
        session = self._session_of_bucket.get(len(images)) or self._sessions[1]
        (raw,) = session.run(None, {spec.name: pack_images(images, spec)})
        promised = self._rows_shape(len(images), images[0])
        if raw.shape != promised:
            raise StartupError(
                f"{self._path}: the model gave an output of shape {raw.shape}, and its contract "
                f"promises {promised}"
            )

    def _rows_shape(self, count: int, image: Pixels) -> tuple[int, int, int]:
        height, width, _ = image.shape
        return count, self._contract.num_cells(height, width), self._contract.output_channels

    @property
    def contract(self) -> ModelContract:
        """What the model promises."""
        return self._contract

    @property
    def provider(self) -> str:
        """The execution provider the session really runs on."""
        return self._provider

    @property
    def wanted_provider(self) -> str:
        """The provider that the device setting aims at."""
        return self._wanted_provider

    @property
    def max_batch(self) -> int:
        """Most images of one call."""
        usual = 1 if self._provider in ON_CPU else GPU_BATCH
        return self._contract.input.batch or self._most_images or usual

    @property
    def spans(self) -> Sequence[int]:
        """How many instances' shares of the CPU one call can use, ascending from 1."""
        return tuple(self._sessions) or (1,)

    def infer(self, images: Sequence[Pixels], span: int = 1) -> RawRows:
        """Run N (H, W, 3) uint8 BGR network inputs; gives (N, A, 4 + 1 + C) raw rows."""
        packed = self._pack(images)
        session = self._session_of_bucket.get(len(packed)) or self._sessions[span]
        binding = session.io_binding()
        binding.bind_cpu_input(self._contract.input.name, packed)
        # The rows are written where they stay; otherwise they would be copied once more.
        raw = self._empty(self._rows_shape(len(packed), images[0]), self._output_dtype)
        binding.bind_output(self._output, "cpu", 0, raw.dtype, raw.shape, raw.ctypes.data)
        session.run_with_iobinding(binding)
        return raw[: len(images)]

    def _pack(self, images: Sequence[Pixels]) -> NDArray[np.generic]:
        """The images as the graph takes them, filled up to a batch that is warmed."""
        spec, count = self._contract.input, len(images)
        bucket = self._bucket(count)
        first = pack_images(images[0][np.newaxis], spec)
        if bucket == 1 and self._memory is None:
            return first
        packed = self._empty((bucket, *first.shape[1:]), first.dtype)
        packed[0] = first[0]
        for number in range(1, count):
            packed[number] = pack_images(images[number][np.newaxis], spec)[0]
        packed[count:] = 0
        return packed

    def _empty(self, shape: tuple[int, ...], dtype: np.dtype[np.generic]) -> NDArray[Any]:
        if self._memory is None:
            return np.empty(shape, dtype)
        return self._memory.take(shape, dtype)

    def _buckets(self) -> list[int]:
        """The batch sizes that are warmed; a GPU runs no others, as a new one costs a new plan."""
        if self._contract.input.batch is not None:
            return [self._contract.input.batch]
        if self._provider in ON_CPU:
            return sorted({1, self.max_batch})
        powers = (2**exponent for exponent in itertools.count())
        return [*itertools.takewhile(lambda size: size < self.max_batch, powers), self.max_batch]

    def _bucket(self, count: int) -> int:
        if self._provider in ON_CPU and self._contract.input.batch is None:
            return count
        return next(size for size in self._buckets() if size >= count)

    def _check_device(self) -> None:
        """Never a silent fall to the CPU."""
        asked = ASKED_PROVIDER.get(self._device)
        if asked not in (None, self._provider):
            raise StartupError(
                f"device {self._device!r} was asked for, and the model would run on "
                f"{self._provider}: {asked} did not start (is there a GPU, and its driver?)"
            )
        tell = log.warning if self._device == "auto" else log.info
        tell("engine provider", asked=self._device, provider=self._provider)
