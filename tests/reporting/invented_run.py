"""A whole run's facts, invented, so that the page is tested without hours of work: the shapes are the stages' own."""

from __future__ import annotations

from typing import Any

import numpy as np

from groundup.bundle.proof import Proof
from groundup.evaluation import bootstrap, calibration, slices
from groundup.evaluation.gates import judge
from groundup.lifecycle.evaluate import Evaluated
from groundup.reporting.facts import Facts

HOSTILE = "<script>alert(1)</script>&\"'\u202e"


def evaluated(task: str = "tabular-classification", classes: tuple[str, ...] = ("no", HOSTILE), n: int = 200) -> Evaluated:
    rng = np.random.default_rng(0)
    regression = task.endswith("regression")
    y: Any = rng.normal(size=n) if regression else rng.integers(0, len(classes), n)
    s = y + rng.normal(size=n) if regression else rng.dirichlet(np.ones(len(classes)), n) + 0.7 * np.eye(len(classes))[y]
    s = s if regression else s / s.sum(1, keepdims=True)
    drawn = bootstrap.replicates(task, y, s, 100, 0)
    found = {k: i.to_dict() for k, i in bootstrap.intervals(task, y, s, drawn, count=100).items()}
    parts = [slices.Slice(HOSTILE, f"v{k}", "category", np.arange(n) % 4 == k) for k in range(4)]
    headline = next(iter(found))
    e = Evaluated(
        task=task,
        n=n,
        metrics=found,
        intervals={"confidence": 0.95, "resamples": 100, "methods": {}},
        validation={k: v["value"] for k, v in found.items()},
        baseline=found,
        baseline_which="mean" if regression else "majority class",
        baseline_note="fitted on a sample",
        improvement={k: {"value": 0.0, "low": -0.1, "high": 0.1} for k in found},
        slices=slices.judge(task, y, s, parts),
        worst=[{"truth": "a", "answer": HOSTILE, "loss": 2.0, "row": 7, "record": {HOSTILE: HOSTILE, "x": None}}],
        gates=judge(headline, headline, {"threshold": -5.0}, found[headline]["value"], None, n),
    )
    if regression:
        e.residuals = calibration.residuals(y, s)
    else:
        e.worst[0]["confidence"] = 0.9
        e.per_class = calibration.per_class(y, s, list(classes))
        e.confused = calibration.confused_pairs(y, s, list(classes))
        e.calibration = calibration.reliability(y, s)
        e.confusion = calibration.confusion(y, s, len(classes))
    return e


def stages() -> dict[str, dict[str, Any]]:
    t = {"p50_ms": 0.02, "p95_ms": 0.03, "p99_ms": 0.04, "calls": 100, "speedup": 1.0, "speedup_low": 1.0, "speedup_high": 1.0}
    fast = t | {"p50_ms": 0.01, "speedup": 2.0, "speedup_low": 1.9, "speedup_high": 2.1}
    candidate = {"summary": HOSTILE, "applicable": True, "why": HOSTILE, "products": 3, "metrics": {"test": {"accuracy": 0.9}}}
    return {
        "prepared": {
            "task": "tabular-classification",
            "sizes": {"train": 700, "validation": 100, "test": 200},
            "inputs": [{"name": HOSTILE, "kind": "category", "nullable": True}, {"name": "x", "kind": "number"}],
            "target": HOSTILE,
            "classes": ["no", HOSTILE],
            "feature_shape": [5],
            "quarantined": 3,
            "data_hash": "abc",
            "notes": [HOSTILE],
            "proofs": [],
        },
        "tuned": {
            "objectives": {"accuracy": "maximize", "latency": "minimize"},
            "best": {"accuracy": 0.91, "latency": 0.02},
            "best_trial": 1,
            "overrides": {"train.optimizer.lr": 0.01},
            "importance": {"train.optimizer.lr": 1.0},
            "trials": [
                {
                    "number": i,
                    "state": "complete",
                    "params": {"train.optimizer.lr": 0.1**i},
                    "values": {"accuracy": 0.9 + i / 100, "latency": 0.02},
                }
                for i in range(3)
            ]
            + [{"number": 3, "state": "failed", "params": {}, "values": {}, "error": HOSTILE}],
            "workers": 2,
            "seconds": 10.0,
        },
        "trained": {
            "kind": "network",
            "model": {"name": HOSTILE, "width": 3},
            "parameters": 1234,
            "best": {"epoch": 2.0},
            "history": [
                {"epoch": i, "train_loss": 1 / (i + 1), "accuracy": i / 10, "log_loss": 1 / (i + 2), "lr": 0.1**i, "seconds": 1}
                for i in range(4)
            ],
            "seconds": 4.0,
        },
        "evaluated": evaluated().model_dump(mode="json"),
        "compressed": {
            "candidates": [
                candidate | {"scheme": "fp32", "bytes": 1000, "products_int8": 0, "latency": {"1": t}},
                candidate | {"scheme": "static_wi8_ai8", "bytes": 400, "products_int8": 3, "latency": {"1": fast}},
            ],
            "verdict": {"chosen": "static_wi8_ai8", "paid": True, "reason": HOSTILE},
            "cpu": {"name": HOSTILE, "vnni": True},
        },
        "rehearsed": {
            "enabled": True,
            "start": {"seconds_to_ready": 1.5, "memory_mb": 90.0},
            "replayed": 200,
            "loads": [{"connections": 32, "requests": 100, "failed": 0, "p50_ms": 1.0, "p99_ms": 2.0, "requests_per_second": 900.0}],
            "restart": {"seconds_until_ready": 2.0},
            "drift": {
                "offline": {"window_rows": 100, "clean_windows": 200, "false_alarms": 1, "detected": {HOSTILE: 1.0}},
                "live": {"shift": HOSTILE, "rows_until_alarm": 100, "alarm_after_clean_again": False},
            },
            "drain": {"failed": 0, "requests": 10},
            "notes": [HOSTILE],
            "seconds": 20.0,
        },
        "registered": {
            "enabled": True,
            "name": HOSTILE,
            "version": 2,
            "promoted": True,
            "champion": 2,
            "champion_before": 1,
            "reasons": [HOSTILE],
            "differences": [{"metric": "accuracy", "first": 0.9, "second": 0.91, "difference": 0.01, "low": -0.01, "high": 0.03}],
        },
    }


def facts() -> Facts:
    column = {"kind": "number", "count": 700, "missing": 7, "distinct": 600, "min": -9.0, "max": 90.0, "mean": 0.1}
    column |= {"quantiles": {"5": -2.0, "95": 2.0}, "bins": {"edges": [-1.0, 0.0, 1.0], "counts": [100, 250, 250, 93, 7]}}
    category = {"kind": "category", "count": 700, "missing": 0, "distinct": 2, "top": [[400, HOSTILE], [300, "b"]]}
    category |= {"bins": {"categories": [HOSTILE, "b"], "counts": [400, 300, 0, 0]}}
    return Facts(
        stages(),
        manifest={
            "name": HOSTILE,
            "version": "0123456789ab",
            "created": "2026-01-02T03:04:05+00:00",
            "environment": {"cpu": {"name": HOSTILE, "features": ["avx2"]}, "libraries": {"numpy": "2"}, "python": "3.11"},
            "files": {"model.onnx": {"bytes": 1000, "sha256": "ff" * 32}},
        },
        profile={HOSTILE: category, "x": column},
        proofs=(
            Proof(1, HOSTILE, HOSTILE, HOSTILE, 0.0, 1e-10, samples=3),
            Proof(4, "it paid", "fp32", "share", 0.5, 0.9, at_least=True),
        ),
    )
