"""A bundle as an MLflow model: one folder with two flavours, and nothing pickled in it.

- ``python_function``: this module loads the bundle into the engine that ``groundup serve`` runs; the whole bundle is its data.
- ``onnx``: the graph file inside of that same bundle, for whoever reads ONNX.

MLflow calls :func:`save_model` (as of any flavour, through ``Model.log``) and :func:`_load_pyfunc`.  It is imported here only
inside of the former, so loading a logged model needs nothing of the training side but MLflow itself.

The signature is a table's columns where the model takes a table, and named tensors where it takes images.  A column
that may lack values is a double for MLflow: its own integer and boolean columns cannot hold a missing value.
"""

from __future__ import annotations

from collections.abc import Mapping
from datetime import UTC, datetime
from pathlib import Path
from typing import Any

import numpy as np

from groundup.bundle import Bundle, Signature
from groundup.bundle.signature import MISSING_DATETIME, Field
from groundup.errors import SchemaError
from groundup.serving.engine import Arrays, Engine

_TYPES = {"number": "double", "integer": "long", "boolean": "boolean", "category": "string", "datetime": "datetime"}


def mlflow_signature(signature: Signature) -> Any:
    """``signature`` as an MLflow ``ModelSignature``."""
    from mlflow.models import ModelSignature
    from mlflow.types import ColSpec, Schema, TensorSpec
    from mlflow.types.schema import AnyType, Array

    if _is_table(signature):
        columns: list[ColSpec | TensorSpec] = []
        for f in signature.inputs:
            kind = "double" if f.nullable and f.kind == "integer" else _TYPES[f.kind]
            anything: Any = AnyType  # untyped in MLflow
            columns.append(ColSpec(anything() if f.nullable and f.kind == "boolean" else kind, name=f.name))
        inputs = Schema(columns)
    else:
        inputs = Schema(
            [TensorSpec(np.dtype(str) if f.kind == "category" else f.dtype, (-1, *f.shape), name=f.name) for f in signature.inputs]
        )
    outputs: list[ColSpec | TensorSpec] = []
    for f in signature.outputs:
        if f.shape:
            outputs.append(ColSpec(Array("float"), name=f.name))
        else:
            outputs.append(ColSpec("string" if f.kind == "category" else "float", name=f.name))
    return ModelSignature(inputs=inputs, outputs=Schema(outputs))


def to_mlflow(signature: Signature, inputs: Mapping[str, Any]) -> Any:
    """Tensors of our convention as what MLflow's signature asks for: a data frame, or a dictionary of arrays."""
    if not _is_table(signature):
        return {f.name: np.asarray(inputs[f.name]) for f in signature.inputs}
    import pandas as pd

    columns = {}
    for f in signature.inputs:
        values = np.asarray(inputs[f.name])
        if f.kind == "category":
            columns[f.name] = pd.Series([None if v == "" else str(v) for v in values], dtype=object)
        elif f.kind == "datetime":
            columns[f.name] = pd.Series(values.astype("datetime64[us]"))
        elif f.kind == "integer" and not f.nullable:
            columns[f.name] = pd.Series(values.astype(np.int64))
        elif f.kind == "boolean":
            columns[f.name] = pd.Series([None if np.isnan(v) else bool(v) for v in values], dtype=object if f.nullable else bool)
        else:
            columns[f.name] = pd.Series(values.astype(np.float64))
    return pd.DataFrame(columns)


def from_mlflow(signature: Signature, data: Any) -> Arrays:
    """Inverse of :func:`to_mlflow`.

    Raises:
        SchemaError: an input is missing.
    """
    if isinstance(data, np.ndarray) and len(signature.inputs) == 1:
        data = {signature.inputs[0].name: data}
    names = set(data) if isinstance(data, Mapping) else set(data.columns)
    if missing := [f.name for f in signature.inputs if f.name not in names]:
        raise SchemaError(f"the input lacks {', '.join(missing)}; expected {', '.join(f.name for f in signature.inputs)}")
    return {f.name: _tensor(f, np.asarray(data[f.name])) for f in signature.inputs}


def _tensor(field: Field, values: Any) -> Any:
    if field.kind == "category":
        made = np.empty(len(values), object)
        made[:] = ["" if v is None or v != v else str(v) for v in values]
        return made
    if field.kind == "datetime":
        moments = [_utc(v) for v in values] if values.dtype == object else values
        micros = np.asarray(moments, "datetime64[us]")
        return np.where(np.isnat(micros), MISSING_DATETIME, micros.astype(np.int64))
    if values.dtype == object:
        values = np.array([np.nan if v is None else v for v in values])
    return np.ascontiguousarray(values.reshape(len(values), *field.shape), field.dtype)


def _utc(value: Any) -> datetime | None:
    if value is None or value != value:
        return None
    moment = value if isinstance(value, datetime) else datetime.fromisoformat(str(value))
    return moment.astimezone(UTC).replace(tzinfo=None) if moment.tzinfo else moment


def _is_table(signature: Signature) -> bool:
    return all(f.kind in _TYPES for f in signature.inputs)


class ServedBundle:
    """What ``mlflow.pyfunc.load_model(...).unwrap_python_model`` wraps: the engine of ``groundup serve``."""

    def __init__(self, bundle: Bundle) -> None:
        self.bundle, self.engine = bundle, Engine(bundle)

    def predict(self, data: Any, params: dict[str, Any] | None = None) -> Any:
        """A data frame with one column an output; a classifier's ``probabilities`` are one list a row."""
        import pandas as pd

        if params:
            raise SchemaError(f"this model takes no parameters, got {', '.join(params)}")
        answers = self.engine.run(from_mlflow(self.bundle.signature, data))
        return pd.DataFrame({name: list(values) if values.ndim > 1 else values for name, values in answers.items()})


def _load_pyfunc(path: str) -> ServedBundle:
    """Called by MLflow with the folder of the logged bundle."""
    return ServedBundle(Bundle.open(Path(path)))


def requirements() -> list[str]:
    """What loading the logged model needs, as installed here."""
    from importlib.metadata import version

    import groundup

    return [
        f"groundup>={groundup.__version__}",
        *(f"{name}=={version(name)}" for name in ("mlflow", "onnx", "onnxruntime", "numpy", "pandas")),
    ]


def save_model(path: str, mlflow_model: Any, bundle: Bundle, example: Mapping[str, Any], **_: Any) -> None:
    """Write the bundle and both flavours into the MLflow model folder ``path`` (called by ``Model.log``).

    Args:
        example: a few rows of inputs in our tensor convention, kept as MLflow's input example.
    """
    import mlflow.pyfunc
    import onnx
    import onnxruntime

    mlflow.pyfunc.save_model(
        path,
        loader_module=__name__,
        data_path=str(bundle.path),
        mlflow_model=mlflow_model,
        signature=mlflow_signature(bundle.signature),
        input_example=to_mlflow(bundle.signature, example),
        pip_requirements=requirements(),
    )
    data = mlflow_model.flavors[mlflow.pyfunc.FLAVOR_NAME][mlflow.pyfunc.DATA]
    mlflow_model.add_flavor(
        "onnx",
        onnx_version=onnx.__version__,
        onnxruntime_version=onnxruntime.__version__,
        data=f"{data}/{bundle.graph}",
        providers=["CPUExecutionProvider"],
        onnx_session_options=None,
        code=None,
    )
    mlflow_model.save(str(Path(path) / "MLmodel"))
