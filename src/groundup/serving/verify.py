"""``groundup verify``: is a bundle still what was proven, on this machine?"""

from __future__ import annotations

import os
from dataclasses import replace

import numpy as np

from groundup.bundle import Bundle, Proof
from groundup.serving.engine import Engine, compare, cpu_difference
from groundup.serving.golden import FILE, read_golden


def verify(path: str | os.PathLike[str]) -> list[Proof]:
    """Check a bundle again, here.

    1. Every file has the hash that the manifest promises, nothing else lies there, the graph refers to no other file.
    2. The golden inputs are answered as where the bundle was made, within the stored tolerance.
    3. A row's answer does not depend on the rows that share its batch.
    4. The proofs that the bundle carries keep their own bounds.

    Returns:
        What was measured here first, then the stored proofs.  ``passed`` is computed from the numbers, never read.

    Raises:
        BundleError: damaged, foreign or unsafe: there is nothing to prove then.
    """
    bundle = Bundle.open(path)
    engine = Engine(bundle)
    golden = read_golden(bundle.read(FILE))
    proofs = [
        Proof(
            link=5,
            claim=f"{bundle.name}: every file has the SHA-256 that the manifest promises",
            reference=f"bundle.json, version {bundle.version}",
            quantity="files that differ",
            measured=0.0,  # Bundle.open has read and hashed every one, and refuses the first that differs
            tolerance=0.0,
            samples=len(bundle.files),
        )
    ]
    difference = cpu_difference(bundle)
    proofs += [p if difference is None else replace(p, reference=f"{p.reference}; {difference}") for p in compare(golden, engine)]
    proofs.append(_alone(bundle, engine, golden.inputs, golden.tolerance))
    return proofs + bundle.proofs()


def _alone(bundle: Bundle, engine: Engine, inputs: dict[str, np.ndarray], tolerance: float) -> Proof:
    together = engine.run(inputs)
    rows = len(next(iter(inputs.values())))
    worst = 0.0
    for row in range(rows):
        alone = engine.run({name: values[row : row + 1] for name, values in inputs.items()})
        for name, values in alone.items():
            if values.dtype.kind == "f":
                a, b = values[0].astype(np.float64), together[name][row].astype(np.float64)
                equal = (a == b) | (np.isnan(a) & np.isnan(b))
                worst = float(np.maximum(worst, np.where(equal, 0.0, np.abs(a - b) / np.maximum(1.0, np.abs(b))).max(initial=0.0)))
    return Proof(
        link=5,
        claim=f"{bundle.name}: a row's answer does not depend on the rows that share its batch",
        reference="the same graph, one row at a time",
        quantity="largest difference",
        measured=worst,
        tolerance=tolerance,
        samples=rows,
    )
