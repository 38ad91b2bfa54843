"""What a loaded graph says of itself, held against its contract."""

from pathlib import Path
from typing import Final

from service.core.contract import ContractError, InputDtype, ModelContract
from service.engine.onnx_sessions import Session
from service.errors import StartupError

HALF: Final = "tensor(float16)"
ONNX_DTYPES: Final[dict[str, InputDtype]] = {
    "tensor(uint8)": "uint8",
    HALF: "float16",
    "tensor(float)": "float32",
}


def read_contract(session: Session, path: Path) -> ModelContract:
    """The contract that a model carries.

    Args:
        session: Of ONNX Runtime, with the model loaded.
        path: The model's file, to name it.

    Raises:
        StartupError: There is none, or the graph does not keep it.
    """
    try:
        contract = ModelContract.from_metadata(session.get_modelmeta().custom_metadata_map)
        _check_graph(contract, session)
    except ContractError as error:
        raise StartupError(
            f"{path}: {error}; `python -m model_export adopt {path}` writes a copy with a contract"
        ) from error
    return contract


def _check_graph(contract: ModelContract, session: Session) -> None:
    """See that the graph's own description agrees with the contract.

    Raises:
        ContractError: It does not.
    """
    inputs, outputs = session.get_inputs(), session.get_outputs()
    names = [node.name for node in inputs]
    if names != [contract.input.name]:
        raise ContractError(
            f"the graph's inputs are {names}, and the contract says {contract.input.name!r}"
        )
    dtype = ONNX_DTYPES.get(inputs[0].type, inputs[0].type)
    if dtype != contract.input.dtype:
        raise ContractError(
            f"the graph takes {dtype}, and the contract says {contract.input.dtype}"
        )
    if len(outputs) != 1:
        raise ContractError(f"the graph has {len(outputs)} outputs, and a contract allows one")
    if outputs[0].type not in ONNX_DTYPES:
        raise ContractError(f"the graph gives {outputs[0].type}, and not float16 or float32")
    channels = outputs[0].shape[-1]
    if isinstance(channels, int) and channels != contract.output_channels:
        raise ContractError(
            f"the graph gives {channels} values a row, and {contract.num_classes} class names make "
            f"{contract.output_channels}"
        )
