"""Small pieces of HTML for notebooks: what a run, a stage's output and a comparison show of themselves.

A notebook has its own page, so a fragment brings the report's colours under a class of its own and leaves the rest alone.
"""

from __future__ import annotations

from collections.abc import Mapping, Sequence
from typing import Any

from groundup.bundle.proof import Proof
from groundup.reporting import evaluation, summary
from groundup.reporting.facts import Facts, Plain
from groundup.reporting.html import Html, facts, join, table, tag
from groundup.reporting.proofs import chain

# Stage of a run -> name of its output on the page.
_OUTPUTS = {
    "prepare": "prepared",
    "tune": "tuned",
    "train": "trained",
    "evaluate": "evaluated",
    "compress": "compressed",
    "package": "packaged",
    "rehearse": "rehearsed",
    "register": "registered",
}


def evaluated_summary(evaluated: Plain) -> str:
    """The headline, the metrics table and the gates of one evaluation.

    Args:
        evaluated: ``Evaluated.model_dump(mode="json")``.
    """
    run = Facts({"evaluated": evaluated})
    sentence = tag("p", join(summary.sentences(run), " "), class_="verdict")
    return framed(sentence, evaluation.metrics_table(evaluated), evaluation.gates_table(evaluated.get("gates") or []))


def run_summary(outputs: Mapping[str, Any], proofs: Sequence[Proof]) -> str:
    """The top of the report for a run's outputs by stage name, and the proof chain."""
    stages = {_OUTPUTS[stage]: output.model_dump(mode="json") for stage, output in outputs.items() if stage in _OUTPUTS}
    run = Facts(stages, proofs=tuple(proofs))
    return framed(tag("p", join(summary.sentences(run), " "), class_="verdict"), summary.cards(run), chain(proofs) if proofs else "")


def output_summary(name: str, fields: Plain) -> str:
    """The plain facts of one stage's output; of lists and tables, how much is in them.

    Args:
        name: of its class.
        fields: ``Output.model_dump(mode="json")``.
    """
    return framed(tag("p", name, class_="verdict"), facts((key.replace("_", " "), _brief(value)) for key, value in fields.items()))


def comparison(head: Sequence[str], rows: Sequence[Sequence[str]], notes: Sequence[str]) -> str:
    """Two runs side by side: a row with nothing but its first cell starts a section and is stressed."""
    marked = [i for i, row in enumerate(rows) if not any(row[1:])]
    return framed(table(head, rows, numeric=(1, 2, 3), marked=marked, caption="comparison"), *[tag("p", note) for note in notes])


def _brief(value: Any) -> Any:
    """A value in one line: scalars as they are, small tables of scalars whole, the rest counted."""
    if isinstance(value, dict) and len(value) <= 12 and not any(isinstance(v, dict | list) for v in value.values()):
        return ", ".join(f"{k} {_brief(v)}" for k, v in value.items()) or None
    if isinstance(value, dict | list):
        return f"{len(value):,} entries" if len(value) != 1 else "1 entry"
    return f"{value:.4g}" if isinstance(value, float) else value


def framed(*content: Any) -> str:
    """Content under the class ``groundup`` with the report's stylesheet scoped to it."""
    from groundup.reporting.page import stylesheet

    # `@scope` keeps the rules inside; its root stands in for the page's own.
    rules = stylesheet().replace(":root", ":scope").replace("body {", ":scope {", 1)
    return tag(
        "div",
        tag("style", Html("@scope (.groundup) {\n" + rules + "\n:scope { padding: 16px; border-radius: 10px; }\n}")),
        *content,
        class_="groundup",
    )
