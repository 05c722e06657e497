"""ONNX Runtime over one bundle: the graph loaded from verified bytes, checked against the signature, self-tested."""

from __future__ import annotations

from collections.abc import Mapping
from typing import Any

import numpy as np
import onnxruntime as ort
from onnxruntime.capi import onnxruntime_pybind11_state as _ort

from groundup.bundle import Bundle, Proof, cpu
from groundup.errors import BundleError, ProofError
from groundup.serving.golden import FILE, Golden, read_golden
from groundup.serving.onnx_scan import refuse_external_data
from groundup.serving.refusal import InferenceError

Arrays = dict[str, np.ndarray[Any, np.dtype[Any]]]

# All that a session raises; they share no base but Exception.
_ERRORS: tuple[type[Exception], ...] = (
    *(getattr(_ort, n) for n in ("EPFail", "EngineError", "Fail", "InvalidArgument", "InvalidGraph", "InvalidProtobuf")),
    *(getattr(_ort, n) for n in ("ModelLoaded", "NoModel", "NoSuchFile", "NotImplemented", "RuntimeException")),
    RuntimeError,
    ValueError,
    TypeError,
)
_TYPES = {
    "float64": "tensor(double)",
    "float32": "tensor(float)",
    "int64": "tensor(int64)",
    "uint8": "tensor(uint8)",
    "object": "tensor(string)",
}


class Engine:
    """Runs a bundle's graph.  ``run`` may be called from several threads.

    Args:
        bundle: opened, hence verified.
        threads: that ONNX Runtime uses for one run.

    Raises:
        BundleError: external data, a graph that ONNX Runtime refuses, or one that does not match the signature.
    """

    def __init__(self, bundle: Bundle, threads: int = 1) -> None:
        self.bundle = bundle
        data = bundle.read(bundle.graph)
        refuse_external_data(data, bundle.graph)
        options = ort.SessionOptions()
        options.intra_op_num_threads = threads
        options.inter_op_num_threads = 1
        options.log_severity_level = 4  # failures are raised; the log is ours
        options.use_deterministic_compute = True
        options.add_session_config_entry("session.intra_op.allow_spinning", "0")  # an idle server costs no CPU
        try:
            self._session = ort.InferenceSession(data, options, providers=["CPUExecutionProvider"])
        except _ERRORS as e:
            raise BundleError(f"{bundle.path}: ONNX Runtime {ort.__version__} cannot load {bundle.graph}: {_reason(e)}") from e
        self._check_signature()
        self._outputs = [o.name for o in bundle.signature.outputs]

    def run(self, inputs: Mapping[str, Any]) -> Arrays:
        """Answers for one batch.

        Args:
            inputs: name -> array (N, ...) for every input of the signature, in its tensor convention.

        Returns:
            name -> array (N, ...) for every output of the signature.

        Raises:
            InferenceError: the graph failed on these inputs.
        """
        try:
            return dict(zip(self._outputs, self._session.run(self._outputs, inputs), strict=True))
        except _ERRORS as e:
            raise InferenceError(_reason(e)) from e

    def self_test(self) -> list[Proof]:
        """Run the bundle's golden inputs and hold the answers against the stored ones.

        Raises:
            BundleError: the bundle has no golden inputs, or they do not fit the signature.
            ProofError: an answer differs by more than the stored tolerance on this machine.
        """
        proofs = compare(read_golden(self.bundle.read(FILE)), self)
        if failed := [p for p in proofs if not p.passed]:
            differ = cpu_difference(self.bundle)
            hint = f"; {differ}" if differ else "; the bundle or ONNX Runtime is not what it was, package it again here"
            raise ProofError(f"{self.bundle.name}: the self-test failed on this machine: {failed[0]}{hint}")
        return proofs

    def _check_signature(self) -> None:
        signature, path = self.bundle.signature, self.bundle.path
        for what, fields, nodes in (
            ("input", signature.inputs, self._session.get_inputs()),
            ("output", signature.outputs, self._session.get_outputs()),
        ):
            have = {n.name: n for n in nodes}
            names = [f.name for f in fields]
            missing = [n for n in names if n not in have]
            surplus = [n for n in have if n not in names] if what == "input" else []
            if missing or surplus or not names:
                raise BundleError(f"{path}: the signature has the {what}s {names}, the graph has {sorted(have)}; package the bundle again")
        for field in signature.inputs:
            node = next(n for n in self._session.get_inputs() if n.name == field.name)
            shape = tuple(node.shape[1:])
            fits = len(node.shape) == 1 + len(field.shape) and all(
                not isinstance(g, int) or g == f for g, f in zip(shape, field.shape, strict=True)
            )
            if node.type != _TYPES[str(field.dtype)] or not fits:
                raise BundleError(
                    f"{path}: input {field.name!r} is {_TYPES[str(field.dtype)]} (N, {', '.join(map(str, field.shape))}) in the signature "
                    f"and {node.type} {node.shape} in the graph; package the bundle again"
                )


def compare(golden: Golden, engine: Engine) -> list[Proof]:
    """One proof an output: the answers here against the stored ones.

    Floating-point answers are compared by the largest absolute difference relative to max(1, |stored|), labels by the
    share that is equal; a label may differ only where the two best probabilities are closer than the tolerance.
    """
    try:
        answers = engine.run(golden.inputs)
    except InferenceError as e:
        raise BundleError(f"{engine.bundle.path}: the golden inputs do not fit the graph: {e}") from e
    rows = len(next(iter(golden.inputs.values())))
    probabilities = golden.outputs.get("probabilities")
    proofs = []
    for name, stored in golden.outputs.items():
        if name not in answers or answers[name].shape != stored.shape:
            raise BundleError(f"{engine.bundle.path}: the golden output {name!r} does not fit the graph's; package the bundle again")
        answer = answers[name]
        common: dict[str, Any] = {"link": 5, "reference": f"{FILE}, made on {_made_on(engine.bundle)}", "samples": rows}
        if stored.dtype.kind in "fc":
            differs = _difference(answer, stored)
            claim = f"{engine.bundle.name}: {name} of the golden inputs is answered here as where the bundle was made"
            proofs.append(Proof(claim=claim, quantity="largest difference", measured=differs, tolerance=golden.tolerance, **common))
        else:
            equal = np.asarray(answer == stored)
            if name == "label" and probabilities is not None and probabilities.ndim == 2 and probabilities.shape[1] > 1:
                best = np.sort(probabilities.astype(np.float64), axis=1)
                equal |= best[:, -1] - best[:, -2] <= 2 * golden.tolerance
            claim = f"{engine.bundle.name}: {name} of the golden inputs is the same here (ties within the tolerance aside)"
            proofs.append(Proof(claim=claim, quantity="share equal", measured=float(equal.mean()), tolerance=1.0, at_least=True, **common))
    return proofs


def cpu_difference(bundle: Bundle) -> str | None:
    """A sentence on how this CPU differs from the one that the bundle was proven on, or None where it does not."""
    then = bundle.environment.get("cpu")
    if not isinstance(then, list | tuple):
        return None
    here = cpu.features()
    lacks, new = sorted(set(then) - set(here)), sorted(set(here) - set(then))
    if not lacks and not new:
        return None
    parts = [f"lacks {', '.join(lacks)}"] * bool(lacks) + [f"adds {', '.join(new)}"] * bool(new)
    return f"this CPU {' and '.join(parts)} compared with the one that the bundle was proven on; integer graphs may answer differently"


def _difference(answer: Any, stored: Any) -> float:
    a, b = answer.astype(np.float64), stored.astype(np.float64)
    with np.errstate(invalid="ignore"):
        differs = np.abs(a - b) / np.maximum(1.0, np.abs(b))
    differs = np.where((a == b) | (np.isnan(a) & np.isnan(b)), 0.0, differs)
    return float(differs.max(initial=0.0))


def _made_on(bundle: Bundle) -> str:
    made = bundle.environment.get("onnxruntime")
    return f"ONNX Runtime {made}" if made else bundle.created or "another machine"


def _reason(error: Exception) -> str:
    """The first line of a runtime error, without the paths of whoever built the library."""
    line = (str(error).splitlines() or [type(error).__name__])[0]
    return line.split(" : ", 2)[-1][:300]
