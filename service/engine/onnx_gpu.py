"""ONNX Runtime on a GPU: CUDA or TensorRT."""

import itertools
from collections.abc import Sequence
from pathlib import Path
from types import ModuleType
from typing import Any, Final, Literal

import numpy as np
from numpy.typing import NDArray

from service.core.contract import ModelContract
from service.core.input_tensor import pack_images
from service.engine.base import (
    CPU,
    CUDA,
    TENSORRT,
    ImageRows,
    Pixels,
    Precision,
    RawRows,
    check_rows,
    grey,
)
from service.engine.candidates import MEMORY_MB, CandidateRows, are_enough, saves_much
from service.engine.cuda_runtime import sleep_while_waiting
from service.engine.host_memory import HostMemory, page_locker
from service.engine.onnx_runtime import (
    HALF,
    ONNX_DTYPES,
    Session,
    choose_providers,
    contract_of,
    import_runtime,
    open_session,
    share_out,
    tensorrt_options,
)
from service.errors import StartupError

GPU_BATCH: Final = 16
MAX_CANDIDATES: Final = 1000


class FellToCpuError(StartupError):
    """ONNX Runtime has the GPU's provider, and ran the model on another."""


class OnnxGpuEngine:
    """A model file in ONNX Runtime, on a GPU or not at all.

    Args:
        path: An ONNX file with a contract.
        device: Which of the GPU's providers runs it.
        max_batch: Most images of one call, unless the graph's batch is fixed (default: 16).
        max_candidates: How many rows of an image are copied from the GPU, unless more are needed.
        gpu_memory_limit_mb: Bound of the GPU arenas in MiB, shared out among the batch sizes.
        tensorrt_cache: Folder where TensorRT keeps the engines it builds.
    """

    on_cpu = False
    spans: Sequence[int] = (1,)
    threads = 1

    def __init__(
        self,
        path: Path,
        device: Literal["cuda", "tensorrt"],
        *,
        max_batch: int | None = None,
        max_candidates: int = MAX_CANDIDATES,
        gpu_memory_limit_mb: int | None = None,
        tensorrt_cache: Path | None = None,
    ) -> None:
        self._path = path
        self._device = device
        self._most_images = max_batch
        self._max_candidates = max_candidates
        self._gpu_memory_limit_mb = gpu_memory_limit_mb
        self._tensorrt_cache = tensorrt_cache
        self.wanted_provider = TENSORRT if device == "tensorrt" else CUDA

    def load(self) -> None:
        """Open the sessions, check the graph against its contract, and see where it really runs.

        Raises:
            FellToCpuError: The model would not run on the GPU.
            StartupError: The runtime or the file is missing, or the contract is missing or wrong.
        """
        runtime = import_runtime()
        providers = choose_providers(
            self._device,
            runtime.get_available_providers(),
            gpu_memory_limit_mb=self._gpu_memory_limit_mb,
        )
        if self._device == "tensorrt":
            providers[0] = (TENSORRT, self._tensorrt_options(runtime))
        # Finds the CUDA libraries that come as wheels, so that no system CUDA is needed.
        runtime.preload_dlls()
        session = open_session(runtime, self._path, providers, 1)
        self._contract = contract_of(session, self._path)
        self._check_device(session)
        output = session.get_outputs()[0]
        self._output: str = output.name
        self._output_dtype = np.dtype(ONNX_DTYPES[output.type])
        self._candidates = self._open_candidates(runtime)
        buckets = self._buckets()
        if self._device == "cuda" and len(buckets) > 1:
            # Only its description was needed; each batch size has a session of its own.
            del session
            self._sessions = self._open_buckets(runtime, buckets)
        else:
            self._sessions = dict.fromkeys(buckets, session)
        sleep_while_waiting()
        # A GPU's batches are large, and are copied there and back.
        self._memory = HostMemory(page_locker())

    def _open_candidates(self, runtime: ModuleType) -> CandidateRows | None:
        """The graph that chooses rows; None for a model that has few of them."""
        spec, count = self._contract.input, self._max_candidates
        if not saves_much(count, self._contract.num_cells(spec.height, spec.width)):
            return None
        limit = None if self._gpu_memory_limit_mb is None else MEMORY_MB
        available = runtime.get_available_providers()
        providers = choose_providers("cuda", available, gpu_memory_limit_mb=limit)
        return CandidateRows(runtime, providers, self._output_dtype, count)

    def _check_device(self, session: Session) -> None:
        found = session.get_providers()[0]
        if found != self.wanted_provider:
            raise FellToCpuError(
                f"device {self._device!r} was asked for, and the model would run on {found}: "
                f"{self.wanted_provider} did not start (is there a GPU, and its driver?)"
            )

    def _open_buckets(self, runtime: ModuleType, buckets: Sequence[int]) -> dict[int, Session]:
        """On CUDA, a session for each batch size.

        Where sizes take turns in one session, each turn plans all convolutions anew: a batch of 32
        that takes an H100 11 ms then takes it three seconds.
        """
        limit_mb = self._gpu_memory_limit_mb
        if limit_mb is not None and self._candidates is not None:
            limit_mb -= MEMORY_MB
        limits = share_out(limit_mb, buckets, self._path)
        available, opened = runtime.get_available_providers(), dict[int, Session]()
        for bucket, limit in zip(buckets, limits, strict=True):
            providers = choose_providers("cuda", available, gpu_memory_limit_mb=limit)
            opened[bucket] = open_session(runtime, self._path, providers, 1)
            found = opened[bucket].get_providers()[0]
            if found != CUDA:
                raise StartupError(
                    f"{self._path}: batches of {bucket} would run on {found}, and not on {CUDA}"
                )
        return opened

    def _tensorrt_options(self, runtime: ModuleType) -> dict[str, str]:
        """TensorRT builds for shapes and a precision, which only the loaded model tells."""
        session = open_session(runtime, self._path, [(CPU, {})], 1)
        return tensorrt_options(
            contract_of(session, self._path).input,
            half=session.get_outputs()[0].type == HALF,
            max_batch=self._most_images or GPU_BATCH,
            cache=self._tensorrt_cache,
        )

    def warm(self, size: tuple[int, int]) -> None:
        """Run every batch size once with inputs of this (height, width) in pixels.

        Raises:
            StartupError: The model cannot run, or its output is not the promised one.
        """
        for batch in self._buckets():
            images = grey(self._contract, size, batch)
            try:
                self._check_output(images)
                self.infer_candidates([*images], [-np.inf] * batch)
            except StartupError:
                raise
            except Exception as error:  # ONNX Runtime's errors share no base of their own
                raise StartupError(f"{self._path}: the model cannot run: {error}") from error

    def _check_output(self, images: Pixels) -> None:
        """Bound outputs have the promised shape; this one has the graph's own."""
        spec = self._contract.input
        (raw,) = self._sessions[len(images)].run(None, {spec.name: pack_images(images, spec)})
        check_rows(raw, images, self._contract, str(self._path))

    def cold_sizes(self, sizes: Sequence[tuple[int, int]]) -> Sequence[tuple[int, int]]:
        """All of them: a GPU plans its convolutions at the first call of a size."""
        return sizes

    @property
    def contract(self) -> ModelContract:
        """The model's contract."""
        return self._contract

    @property
    def provider(self) -> str:
        """The execution provider that the sessions really run on."""
        return self.wanted_provider

    @property
    def precision(self) -> Precision:
        """The number format that the graph is written in; CUDA multiplies float32 in TF32."""
        return "f16" if self._output_dtype == np.float16 else "f32"

    @property
    def max_batch(self) -> int:
        """Most images of one call."""
        return self._contract.input.batch or self._most_images or GPU_BATCH

    def infer(self, images: Sequence[Pixels], span: int = 1) -> RawRows:  # noqa: ARG002 - CPUs'
        """Run N (H, W, 3) uint8 BGR network inputs; gives (N, A, 4 + 1 + C) raw rows."""
        session, binding, shape = self._bind(images)
        # The runtime writes the rows where they stay, which saves a copy.
        raw: NDArray[Any] = self._memory.take(shape, self._output_dtype)
        binding.bind_output(self._output, "cpu", 0, raw.dtype, raw.shape, raw.ctypes.data)
        session.run_with_iobinding(binding)
        return raw[: len(images)]

    def infer_candidates(
        self, images: Sequence[Pixels], thresholds: Sequence[float]
    ) -> list[ImageRows]:
        """Run N inputs, and copy from the GPU only the best rows of each where these are enough.

        Args:
            images: N (H, W, 3) uint8 BGR network inputs.
            thresholds: For each, the raw objectness from which on a row is needed.

        Returns:
            For each image at least the rows whose objectness reaches its threshold.
        """
        height, width, _ = images[0].shape
        cells = self._contract.num_cells(height, width)
        if self._candidates is None or not saves_much(self._max_candidates, cells):
            return [ImageRows(raw) for raw in self.infer(images)]
        session, binding, _ = self._bind(images)
        binding.bind_output(self._output, "cuda")
        session.run_with_iobinding(binding)
        (rows,) = binding.get_outputs()
        chosen = self._candidates.choose(rows, self._memory.take)[: len(images)]
        if are_enough(chosen, thresholds):
            return chosen
        return [ImageRows(raw) for raw in rows.numpy()[: len(images)]]

    def _bind(self, images: Sequence[Pixels]) -> tuple[Session, Any, tuple[int, int, int]]:
        """The session of a batch size with its input bound, and the shape of the rows to come."""
        tensor = self._pack(images)
        session = self._sessions[len(tensor)]
        binding = session.io_binding()
        binding.bind_cpu_input(self._contract.input.name, tensor)
        height, width, _ = images[0].shape
        return session, binding, self._contract.rows_shape(len(tensor), height, width)

    def _pack(self, images: Sequence[Pixels]) -> NDArray[np.generic]:
        """The images as the graph takes them, filled up to a batch size that is warmed."""
        spec, count = self._contract.input, len(images)
        bucket = next(size for size in self._buckets() if size >= count)
        first = pack_images(images[0][np.newaxis], spec)
        tensor = self._memory.take((bucket, *first.shape[1:]), first.dtype)
        tensor[0] = first[0]
        for number in range(1, count):
            tensor[number] = pack_images(images[number][np.newaxis], spec)[0]
        tensor[count:] = 0
        return tensor

    def _buckets(self) -> list[int]:
        """The batch sizes that run; any other would cost a new plan."""
        if self._contract.input.batch is not None:
            return [self._contract.input.batch]
        powers = (2**exponent for exponent in itertools.count())
        return [*itertools.takewhile(lambda size: size < self.max_batch, powers), self.max_batch]
