"""Calls of CUDA's own library."""

import pytest

from service.engine.cuda_runtime import sleep_while_waiting


class CudaRuntime:
    """Stands in for CUDA's runtime library."""

    def __init__(self, code: int) -> None:
        self.flags: list[int] = []
        self._code = code

    def cudaSetDeviceFlags(self, flags: object) -> int:  # noqa: N802
        self.flags.append(flags.value)  # type: ignore[attr-defined]
        return self._code


@pytest.mark.parametrize(("code", "said"), [(0, False), (708, True)])
def test_threads_are_to_sleep_and_a_refusal_is_only_told(
    monkeypatch: pytest.MonkeyPatch, capsys: pytest.CaptureFixture[str], code: int, said: bool
) -> None:
    library = CudaRuntime(code)
    monkeypatch.setattr("service.engine.cuda_runtime.cuda_runtime", lambda: library)
    sleep_while_waiting()
    assert library.flags == [4]
    assert ("keep a CPU busy" in capsys.readouterr().err) == said


def test_without_the_library_there_is_nothing_to_do(monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.setattr("service.engine.cuda_runtime.CUDA_RUNTIMES", ("libnone.so.0",))
    sleep_while_waiting()
