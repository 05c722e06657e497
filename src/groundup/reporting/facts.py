"""What a run left, as plain data for the page: each stage's output dumped, and the files beside it that the page shows."""

from __future__ import annotations

import base64
import json
from collections.abc import Mapping
from dataclasses import dataclass, field
from pathlib import Path
from typing import Any

from groundup.bundle.proof import Proof

STAGES = ("prepared", "tuned", "trained", "evaluated", "compressed", "packaged", "rehearsed", "registered")
Plain = dict[str, Any]


@dataclass(frozen=True)
class Facts:
    """Everything that the page shows; what did not run is empty.

    Attributes:
        stages: name of the output (``STAGES``) -> its fields.
        paths: the same names -> the stage's directory, for those that have one.
        manifest: the bundle's ``bundle.json``.
        profile: ``profile.json``'s columns of the inputs, name -> description.
        proofs: every proof of the run, in the order of the chain.
    """

    stages: Mapping[str, Plain]
    paths: Mapping[str, Path] = field(default_factory=dict)
    manifest: Plain = field(default_factory=dict)
    profile: Plain = field(default_factory=dict)
    proofs: tuple[Proof, ...] = ()

    def __getitem__(self, stage: str) -> Plain:
        """The fields of one output, {} where the stage did not run."""
        return self.stages.get(stage, {})

    def picture(self, stage: str, relative: str) -> str | None:
        """A PNG of a stage as a data URI; None where it is not there."""
        if stage not in self.paths or not (self.paths[stage] / relative).is_file():
            return None
        return "data:image/png;base64," + base64.b64encode((self.paths[stage] / relative).read_bytes()).decode()


def gather(outputs: Mapping[str, Any]) -> Facts:
    """Facts of a run's outputs (pydantic models with a ``path``), by the names in ``STAGES``; None for those that did not run."""
    there = {name: output for name, output in outputs.items() if output is not None}
    stages = {name: output.model_dump(mode="json") for name, output in there.items()}
    paths = {name: Path(output.path) for name, output in there.items()}
    newest = next((paths[n] / "bundle" / "bundle.json" for n in ("rehearsed", "packaged") if n in paths), None)
    profile = _read(paths["prepared"] / "profile.json") if "prepared" in paths else {}
    return Facts(
        stages=stages,
        paths=paths,
        manifest=_read(newest) if newest else {},
        profile=profile.get("inputs", profile).get("columns", {}),
        proofs=proofs_of(stages),
    )


def proofs_of(stages: Mapping[str, Plain]) -> tuple[Proof, ...]:
    """The proofs in the outputs' fields, each once, in the order of the chain.

    Two stages may carry the same claim (a proof made again later on); the later one counts.
    """
    found: dict[tuple[int, str], Proof] = {}
    for fields in stages.values():
        records = fields.get("proofs")
        for record in records if isinstance(records, list) else []:  # Packaged counts them under the same name
            found[(record["link"], record["claim"])] = Proof.from_dict(record)
    return tuple(sorted(found.values(), key=lambda p: p.link))


def _read(path: Path) -> Plain:
    if not path.is_file():
        return {}
    data: Plain = json.loads(path.read_bytes())
    return data
