"""A loaded graph's description of itself, held against the contract that its file carries."""

from collections.abc import Mapping, Sequence
from dataclasses import dataclass
from pathlib import Path
from typing import Final

from service.core.contract import ContractError, InputDtype, ModelContract
from service.errors import StartupError

OUTPUT_DTYPES: Final = ("float16", "float32")


@dataclass(frozen=True, slots=True)
class GraphFacts:
    """Names, element types and sizes of a graph's inputs and outputs.

    Attributes:
        inputs: Name and element type of each input, as `uint8`, `float16` or `float32`; another
            type keeps the runtime's own name.
        output_dtypes: Element type of each output, likewise.
        output_channels: Length of the first output's last axis, or None if it is open.
    """

    inputs: Sequence[tuple[str, InputDtype | str]]
    output_dtypes: Sequence[InputDtype | str]
    output_channels: int | None


def read_contract(metadata: Mapping[str, str], graph: GraphFacts, path: Path) -> ModelContract:
    """The contract that a model file carries.

    Args:
        metadata: The file's metadata properties.
        graph: The graph's description of itself.
        path: The model file, to name it in errors.

    Raises:
        StartupError: There is no contract, or the graph contradicts it.
    """
    try:
        contract = ModelContract.from_metadata(metadata)
        _check_input(contract, graph)
        _check_output(contract, graph)
    except ContractError as error:
        raise StartupError(
            f"{path}: {error}; `yolox-serve adopt {path}` writes a copy with a contract"
        ) from error
    return contract


def _check_input(contract: ModelContract, graph: GraphFacts) -> None:
    names = [name for name, _ in graph.inputs]
    if names != [contract.input.name]:
        raise ContractError(
            f"the graph's inputs are {names}, and the contract says {contract.input.name!r}"
        )
    dtype = graph.inputs[0][1]
    if dtype != contract.input.dtype:
        raise ContractError(
            f"the graph takes {dtype}, and the contract says {contract.input.dtype}"
        )


def _check_output(contract: ModelContract, graph: GraphFacts) -> None:
    if len(graph.output_dtypes) != 1:
        raise ContractError(
            f"the graph has {len(graph.output_dtypes)} outputs, and a contract allows one"
        )
    if graph.output_dtypes[0] not in OUTPUT_DTYPES:
        raise ContractError(f"the graph gives {graph.output_dtypes[0]}, and not float16 or float32")
    if graph.output_channels not in (None, contract.output_channels):
        raise ContractError(
            f"the graph gives {graph.output_channels} values a row, and {contract.num_classes} "
            f"class names make {contract.output_channels}"
        )
