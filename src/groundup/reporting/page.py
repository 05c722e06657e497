"""The report: one self-contained page.  No script, no network, no font that is not there already."""

from __future__ import annotations

from importlib.resources import files

from groundup.reporting.compression import compression
from groundup.reporting.data import data
from groundup.reporting.evaluation import evaluation
from groundup.reporting.facts import Facts
from groundup.reporting.html import EMPTY, Html, join, tag
from groundup.reporting.proofs import proofs
from groundup.reporting.registry import environment, registry
from groundup.reporting.rehearsal import rehearsal
from groundup.reporting.summary import verdict
from groundup.reporting.training import training
from groundup.reporting.tuning import tuning

# The page may load nothing from anywhere, even if something slipped past the escaping.
POLICY = "default-src 'none'; style-src 'unsafe-inline'; img-src data:"


def page(run: Facts) -> str:
    """The whole document, as text for a UTF-8 file.  Sections of stages that did not run are left out."""
    parts = [
        ("evaluation", "Evaluation", evaluation(run)),
        ("compression", "Compression", compression(run)),
        ("rehearsal", "Rehearsal", rehearsal(run)),
        ("proofs", "Proofs", proofs(run.proofs)),
        ("data", "Data", data(run)),
        ("tuning", "Tuning", tuning(run)),
        ("training", "Training", training(run)),
        ("registry", "Registry", registry(run)),
        ("environment", "Make it again", environment(run)),
    ]
    shown = [(identity, title, part) for identity, title, part in parts if part]
    name = str(run.manifest.get("name") or run["registered"].get("name") or "run")
    main = tag(
        "main",
        verdict(run),
        _contents(shown),
        join(part for _, _, part in shown),
        tag("footer", tag("p", "Made by groundup from measurements of this run; nothing on this page is loaded from elsewhere.")),
    )
    return document(f"{name}: groundup report", main)


def document(title: str, main: Html) -> str:
    """A whole HTML document of one element, with the stylesheet and the policy in its head."""
    head = tag(
        "head",
        tag("meta", charset="utf-8"),
        tag("meta", name_="viewport", content="width=device-width, initial-scale=1"),
        tag("meta", http_equiv="Content-Security-Policy", content=POLICY),
        tag("meta", name_="color-scheme", content="light dark"),
        tag("title", title),
        tag("style", stylesheet()),
    )
    return "<!doctype html>\n" + tag("html", head, tag("body", main), lang="en") + "\n"


def _contents(shown: list[tuple[str, str, Html]]) -> Html:
    links = [tag("a", title, href=f"#{identity}") for identity, title, _ in shown]
    return tag("nav", *links, aria_label="Sections") if len(links) > 1 else EMPTY


def stylesheet() -> Html:
    """The page's CSS."""
    return Html(files("groundup.reporting").joinpath("page.css").read_text(encoding="utf-8"))


def palette() -> Html:
    """The colours and fonts alone, light and dark, under ``:root``: for a drawing that stands by itself."""
    return Html(stylesheet().partition("\n* {")[0])
