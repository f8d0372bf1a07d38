"""What the JSON of an inference request must say; frozen once read."""

from __future__ import annotations

from typing import Annotated, Any

from pydantic import (
    BaseModel,
    BeforeValidator,
    ConfigDict,
    Field,
    PlainValidator,
    ValidationError,
    field_validator,
    model_validator,
)

from dropclass_deploy.core.errors import printable
from dropclass_deploy.serving.server.refusals import RefusedRequestError
from dropclass_deploy.serving.server.settings import ServerSettings

IMAGE, MASK, DATATYPE = "image", "mask", "UINT8"
_ID_LENGTH = 1024
_UINT64_MAX = 2**64 - 1

Parameters = dict[str, bool | int | float | str]


def shown(value: object) -> str:
    """A client's own value in a message to it: short, on one line, writable as UTF-8."""
    # Not what a list or object holds: millions of entries would be written out for their first ones.
    return f"a {type(value).__name__}" if isinstance(value, list | dict) else printable(str(value)[:60])


def _flag(parameters: Parameters, name: str) -> bool | None:
    value = parameters.get(name)
    if value is not None and not isinstance(value, bool):
        raise ValueError(f"the parameter {name!r} must be true or false")
    return value


def _shape(value: Any) -> tuple[int, ...]:
    # By hand: pydantic would collect an error for each of a million wrong entries.
    rank = len(value) if isinstance(value, list) else None
    if rank != 4:
        said = "is no list" if rank is None else f"has rank {rank}"
        raise ValueError(f"{said}; expected four dimensions, [N, H, W, 3], for a single image too")
    for entry in value:
        if type(entry) is not int or entry < 1:
            raise ValueError(f"holds {shown(entry)!r}; expected integers of at least 1")
    return tuple(value)


def _parameters(value: object) -> object:
    # By hand: of a union, pydantic would tell what each of its types wants.
    if value is None:
        return {}
    if not isinstance(value, dict) or not all(type(entry) in (bool, int, float, str) for entry in value.values()):
        raise ValueError("must be an object of numbers, strings and booleans")
    return value


def _no_shared_memory(parameters: Parameters) -> Parameters:
    named = [key for key in parameters if key.startswith("shared_memory")]
    if named:
        raise ValueError(f"shared memory is not served ({shown(named[0])!r}); send and take the bytes in the bodies")
    return parameters


class _Part(BaseModel):
    # Unknown keys are mostly misspelt ones: "output" for "outputs" should not pass in silence.
    model_config = ConfigDict(frozen=True, strict=True, extra="forbid")

    parameters: Annotated[Parameters, PlainValidator(_parameters)] = Field(default_factory=dict)


class InputTensor(_Part):
    """One of ``inputs``.

    Attributes:
        shape: four integers, each at least 1, of any size.
        data: what the JSON holds for it, unread; None where the values are in the binary part.
    """

    name: str
    shape: Annotated[tuple[int, ...], BeforeValidator(_shape)]
    datatype: str
    data: Any = None

    @field_validator("parameters")
    @classmethod
    def _in_the_body(cls, parameters: Parameters) -> Parameters:
        return _no_shared_memory(parameters)

    @model_validator(mode="after")
    def _one_source(self) -> InputTensor:
        size = self.parameters.get("binary_data_size")
        if "binary_data_size" in self.parameters and (type(size) is not int or size < 0):
            raise ValueError(f"the parameter 'binary_data_size' is {shown(size)!r}; expected a number of bytes")
        if (self.data is None) == (size is None):
            raise ValueError("needs either 'data' or the parameter 'binary_data_size'")
        return self

    @property
    def binary_size(self) -> int | None:
        """Bytes of the binary part that are this tensor's; None where its values are in the JSON."""
        size = self.parameters.get("binary_data_size")
        return size if isinstance(size, int) else None


class RequestedOutput(_Part):
    """One of ``outputs``; ``binary`` None leaves the choice to the request."""

    name: str

    @field_validator("parameters")
    @classmethod
    def _plain(cls, parameters: Parameters) -> Parameters:
        if "classification" in parameters:
            raise ValueError("the parameter 'classification' is not served: a mask has one class id a pixel")
        _flag(parameters, "binary_data")
        return _no_shared_memory(parameters)

    @property
    def binary(self) -> bool | None:
        """Whether it is to come as bytes."""
        return _flag(self.parameters, "binary_data")


class RequestDocument(_Part):
    """The JSON of a request; parameters that this protocol does not define are taken and ignored, as Triton does."""

    id: Annotated[str | None, Field(max_length=_ID_LENGTH)] = None
    inputs: list[InputTensor]
    outputs: list[RequestedOutput] | None = None

    @field_validator("id")
    @classmethod
    def _writable(cls, value: str | None) -> str | None:
        if value is not None and any("\ud800" <= sign <= "\udfff" for sign in value):
            raise ValueError("holds half a character")
        return value

    @field_validator("parameters")
    @classmethod
    def _known(cls, parameters: Parameters) -> Parameters:
        _flag(parameters, "binary_data_output")
        sequence = [key for key in parameters if key.startswith("sequence_")]
        if any(parameters[key] not in (0, "", False) for key in sequence):
            raise ValueError(
                f"sequences are not served (the parameter {shown(sequence[0])!r}): every request stands alone"
            )
        _timeout_us(parameters.get("timeout", 0))
        return parameters

    @property
    def binary_output(self) -> bool:
        """Whether outputs that say nothing themselves come as bytes."""
        return bool(_flag(self.parameters, "binary_data_output"))

    @property
    def timeout_s(self) -> float | None:
        """From now, in seconds; None where the request asks for nothing."""
        return _timeout_us(self.parameters.get("timeout", 0)) / 1e6 or None


def _timeout_us(value: object) -> int:
    """Triton's unit is the microsecond; some clients write every parameter as a string."""
    if isinstance(value, str) and value.isascii() and value.isdecimal() and len(value) <= 20:
        value = int(value)
    if type(value) is not int or not 0 <= value <= _UINT64_MAX:
        raise ValueError(f"the parameter 'timeout' is {shown(value)!r}; expected microseconds, an integer of 64 bits")
    return value


def read_document(found: Any, settings: ServerSettings) -> RequestDocument:
    """A request out of parsed JSON.

    Raises:
        RefusedRequestError: 400, saying what is wrong where.
    """
    if not isinstance(found, dict):
        raise RefusedRequestError(400, 'the request\'s JSON is no object; expected {"inputs": […]}')
    for key in ("inputs", "outputs"):
        tensors = found.get(key)
        if isinstance(tensors, list) and len(tensors) > settings.max_tensors:
            raise RefusedRequestError(
                400, f"{key} names {len(tensors)} tensors; at most {settings.max_tensors} are taken"
            )
    try:
        return RequestDocument.model_validate(found)
    except ValidationError as error:
        first = error.errors(include_url=False, include_context=False, include_input=False)[0]
        place = ".".join(shown(part) for part in first["loc"][:4]) or "the request"
        said = "is no key of this protocol" if first["type"] == "extra_forbidden" else first["msg"]
        raise RefusedRequestError(400, f"{place}: {said.removeprefix('Value error, ')}") from error
