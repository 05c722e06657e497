"""The types of a bundle's requests and answers, made from its signature, as JSON schema for the generated documentation."""

from __future__ import annotations

import math
from datetime import datetime
from typing import Annotated, Any

from pydantic import BaseModel, ConfigDict, Field, create_model
from pydantic.json_schema import models_json_schema

from groundup.bundle import Signature
from groundup.bundle.signature import Field as Column

_REFERENCE = "#/components/schemas/{model}"
_FLOAT32 = 3.4028234663852886e38
_SCALARS: dict[str, Any] = {
    "number": float,
    "integer": Annotated[int, Field(ge=-(2**53), le=2**53)],  # integers travel as float64
    "boolean": bool,
    "category": Annotated[str, Field(pattern=r"^[^\u0000]*$")],
    "datetime": datetime,
}
_DATATYPES = "BOOL, UINT8 … UINT64, INT8 … INT64, FP16, FP32, FP64 or BYTES"


class Tensor(BaseModel):
    """A tensor of the Open Inference Protocol."""

    name: str
    shape: list[int] = Field(description="The first axis counts rows.")
    datatype: str = Field(description=_DATATYPES)
    data: list[Any] = Field(description="Row-major, flat or nested.")


class RequestedOutput(BaseModel):
    """An output that is wanted."""

    name: str
    parameters: dict[str, Any] = {}


class InferRequest(BaseModel):
    """Open Inference Protocol v2: tensors by name."""

    id: str | None = None
    parameters: dict[str, Any] = Field({}, description="timeout: microseconds; binary_data_output: outputs as raw bytes.")
    inputs: list[Tensor]
    outputs: list[RequestedOutput] = Field([], description="All outputs where left out.")


class InferResponse(BaseModel):
    """Open Inference Protocol v2: the outputs' tensors."""

    model_name: str
    model_version: str
    id: str | None = None
    outputs: list[Tensor]


class Refusal(BaseModel):
    """Every error but those of /invocations."""

    error: str


class InvocationsRefusal(BaseModel):
    """An error of /invocations."""

    error_code: str
    message: str


def schemas(signature: Signature, example: dict[str, Any]) -> tuple[dict[str, Any], dict[str, Any]]:
    """The components of the OpenAPI document, and {use: reference into them}.

    Uses: record, answer, answers, infer_request, infer_response, refusal, invocations_refusal.
    """
    record = _model("Record", signature.inputs, {"examples": [example]})
    answer = _model("Answer", signature.outputs, {}, answer=True)
    answers = create_model("Answers", predictions=(list[answer], ...))  # type: ignore[valid-type]
    models: dict[str, type[BaseModel]] = {
        "record": record,
        "answer": answer,
        "answers": answers,
        "infer_request": InferRequest,
        "infer_response": InferResponse,
        "refusal": Refusal,
        "invocations_refusal": InvocationsRefusal,
    }
    made, top = models_json_schema([(m, "validation") for m in models.values()], ref_template=_REFERENCE)
    return top["$defs"], {use: made[(model, "validation")] for use, model in models.items()}


def _model(name: str, columns: tuple[Column, ...], extra: dict[str, Any], answer: bool = False) -> type[BaseModel]:
    fields: dict[str, Any] = {}
    for i, c in enumerate(columns):
        # In an answer, numbers that are not finite are null.
        kind = dict[str, float | None] if answer and c.name == "probabilities" else _type(c, answer)
        optional = c.nullable or (answer and c.kind == "number")
        fields[f"c{i}"] = (
            kind | None if optional else kind,
            Field(alias=c.name, description=_description(c), examples=list(c.categories or ())[:5] or None),
        )
    return create_model(name, __config__=ConfigDict(extra="forbid", json_schema_extra=extra), **fields)


def _type(column: Column, answer: bool) -> Any:
    if column.kind in _SCALARS:
        return _SCALARS[column.kind]
    kind: Any = float | None if answer else Annotated[float, Field(ge=-_FLOAT32, le=_FLOAT32)]
    if column.kind == "image":
        kind = Annotated[int, Field(ge=0, le=255)]
    for size in reversed(column.shape):
        kind = Annotated[list[kind], Field(min_length=size, max_length=size)]
    return kind


def _description(column: Column) -> str:
    text = column.description or column.kind
    if column.minimum is not None and column.maximum is not None and column.kind in ("number", "integer"):
        text += f"; in training from {column.minimum:g} to {column.maximum:g}"
    if column.shape:
        text += f"; {' × '.join(map(str, column.shape))} = {math.prod(column.shape)} numbers"
    return text + ("; null where missing" if column.nullable else "")
