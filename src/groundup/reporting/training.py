"""Tuning's and training's part of the page: what was tried, what mattered, and how the model learned."""

from __future__ import annotations

from collections.abc import Sequence

from groundup.metrics import DIRECTIONS
from groundup.reporting import format as fmt
from groundup.reporting import svg
from groundup.reporting.facts import Facts, Plain
from groundup.reporting.html import EMPTY, Html, facts, figure, more, section, table, tag

# Of an epoch's record, what is neither a metric nor a loss.
_NOT_SCORES = frozenset({"epoch", "lr", "seconds", "samples_per_second", "train_loss"})


def training(run: Facts) -> Html:
    """The whole section."""
    t = run["trained"]
    if not t:
        return EMPTY
    history: list[Plain] = t.get("history") or []
    model = t.get("model") or {}
    looped = t.get("kind") == "network"  # an estimator has no epochs, whatever its one record says
    last = history[-1] if history and looped else {}
    settings = {k: v for k, v in model.items() if k not in ("name", "class")}
    described = facts(
        [
            ("model", tag("code", model.get("name") or model.get("class") or t.get("kind"))),
            ("parameters", f"{t['parameters']:,}" if t.get("parameters") else None),
            (
                "epochs",
                f"{len(history)}, kept {t['best']['epoch']:.0f}" if looped and history and "epoch" in (t.get("best") or {}) else None,
            ),
            ("time", fmt.seconds(t.get("seconds")) if t.get("seconds") else None),
            ("throughput", f"{fmt.number(last['samples_per_second'], 3)} samples/s" if last.get("samples_per_second") else None),
            ("precision", t.get("precision") if looped else None),
        ]
    )
    return section(
        "training",
        "Training",
        described,
        _curves(history, (t.get("best") or {}).get("epoch")),
        more("Model settings", table(("setting", "value"), [[k, fmt.plain(v)] for k, v in settings.items()], caption="Model settings"))
        if settings
        else EMPTY,
    )


def _curves(history: Sequence[Plain], kept: float | None) -> Html:
    if len(history) < 2:
        return EMPTY

    def series(name: str, shown: str | None = None) -> svg.Series:
        return svg.Series(shown or name, [(h["epoch"], h[name]) for h in history if fmt.defined(h.get(name))])

    losses = [series("train_loss", "training")]
    names = [n for n in history[-1] if n not in _NOT_SCORES]
    losses += [series(n, "validation") for n in names if n in ("validation_loss", "val_loss", "loss", "log_loss", "rmse")][:1]
    scores = [n for n in names if DIRECTIONS.get(n.removeprefix("validation_")) == "maximize"][:3]
    mark = "; dashed, the epoch that was kept" if kept is not None else ""
    return tag(
        "div",
        figure(svg.lines(losses, "epoch", "loss", "Loss by epoch", mark=kept), f"Loss by epoch{mark}."),
        figure(
            svg.lines([series(n, fmt.LABELS.get(n, n)) for n in scores], "epoch", "validation", "Validation metrics by epoch", mark=kept),
            f"Metrics on the validation split by epoch{mark}.",
        )
        if scores
        else EMPTY,
        figure(svg.lines([series("lr")], "epoch", "learning rate", "Learning rate by epoch"), "Learning rate by epoch.")
        if len({h.get("lr") for h in history}) > 1
        else EMPTY,
        class_="figures",
    )
