"""A call of the protocol, whether it came by HTTP or by gRPC: images, options, wanted outputs."""

from collections.abc import Mapping, Sequence
from dataclasses import dataclass
from math import ceil
from typing import Any, Final

from pydantic import ValidationError

from service.errors import InvalidOptionError, MalformedRequestError
from service.http.inference_protocol.calls.outputs import DEFAULT_OUTPUTS, OUTPUTS
from service.http.options import DetectQuery, RequestLimits, describe_options
from service.pipeline.stages import Source

MAX_ID_LENGTH: Final = 256
# The protocol's own parameters of a request; all others are options.
BINARY_OUTPUT: Final = "binary_data_output"
TIMEOUT_US: Final = "timeout"
NOT_HERE: Final = {
    "classification": "class_ids, class_names and class_scores are outputs of their own",
    "format": "answers are tensors; `format` is an option of /detect alone",
    "model": "the call names the model",
    "version": "the call names the version",
    "priority": "all requests have the same priority here",
    "sequence_id": "requests do not depend on each other here",
    "sequence_start": "requests do not depend on each other here",
    "sequence_end": "requests do not depend on each other here",
}

Parameters = Mapping[str, object]


@dataclass(frozen=True, slots=True)
class Call:
    """A call of a model.

    Attributes:
        id: The client's id, which the answer repeats.
        sources: The images.
        query: The options, as `/detect` has them.
        outputs: Names of the tensors to answer with.
    """

    id: str
    sources: Sequence[Source]
    query: DetectQuery
    outputs: Sequence[str]

    @property
    def wants_rows(self) -> bool:
        """Whether the raw rows are among the outputs."""
        return "rows" in self.outputs


def read_id(given: str) -> str:
    """The id of a call.

    Raises:
        MalformedRequestError: It is too long to be repeated.
    """
    if len(given) > MAX_ID_LENGTH:
        raise MalformedRequestError(f"id may have at most {MAX_ID_LENGTH} characters")
    return given


def read_options(parameters: Parameters, limits: RequestLimits) -> DetectQuery:
    """The options among the parameters of a request.

    Raises:
        InvalidOptionError: A parameter is unknown or out of range.
    """
    given: dict[str, Any] = {k: v for k, v in parameters.items() if k != BINARY_OUTPUT}
    for name in NOT_HERE.keys() & given:
        raise InvalidOptionError(f"unknown parameter {name}: {NOT_HERE[name]}")
    if TIMEOUT_US in given:
        given["timeout_ms"] = _milliseconds(given.pop(TIMEOUT_US))
    try:
        query = DetectQuery.model_validate(given)
    except ValidationError as error:
        raise InvalidOptionError(describe_options(error.errors())) from error
    query.check(limits)
    return query


def read_flag(parameters: Parameters, name: str, *, default: bool) -> bool:
    """A parameter that is true or false.

    Raises:
        MalformedRequestError: It is neither.
    """
    value = parameters.get(name, default)
    if not isinstance(value, bool):
        raise MalformedRequestError(f"parameter {name} must be true or false")
    return value


def read_outputs(names: Sequence[str]) -> Sequence[str]:
    """The names of the wanted outputs; none means those that do not have to be asked for.

    Raises:
        MalformedRequestError: There is no such output, or one is asked for twice.
    """
    for name in names:
        if name not in OUTPUTS:
            known = ", ".join(OUTPUTS)
            raise MalformedRequestError(f"unknown output {name!r:.80}; the outputs are {known}")
    if len(set(names)) < len(names):
        raise MalformedRequestError("an output is asked for twice")
    return names or DEFAULT_OUTPUTS


def refuse_unknown(parameters: Parameters, known: Sequence[str], of: str) -> None:
    """See that a tensor has no parameter that would be ignored.

    Raises:
        MalformedRequestError: It has one.
    """
    for name in parameters:
        if name not in known:
            why = f": {NOT_HERE[name]}" if name in NOT_HERE else ""
            raise MalformedRequestError(f"{of}: unknown parameter {name!r:.80}{why}")


def _milliseconds(timeout_us: object) -> int:
    """The protocol's timeout, in microseconds, which may be text, as an option's value."""
    try:
        return ceil(int(str(timeout_us)) / 1000)
    except (ValueError, OverflowError) as error:
        raise InvalidOptionError("timeout must be a whole number of microseconds") from error
