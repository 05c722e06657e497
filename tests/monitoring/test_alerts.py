import shutil
import subprocess
from pathlib import Path

import numpy as np
import pytest
import yaml
from prometheus_client import CollectorRegistry, generate_latest

from groundup.bundle.signature import Field, Signature
from groundup.monitoring.live import Live
from groundup.monitoring.profile import Profile
from groundup.monitoring.settings import LogSettings, Monitor

FOLDER = Path(__file__).parents[2] / "deploy" / "prometheus"
PROMTOOL = shutil.which("promtool")


def rules() -> list[dict]:
    return [rule for group in yaml.safe_load((FOLDER / "alerts.yml").read_text())["groups"] for rule in group["rules"]]


@pytest.mark.skipif(PROMTOOL is None, reason="promtool (package prometheus) is not installed")
@pytest.mark.parametrize("arguments", [["check", "rules", "alerts.yml"], ["test", "rules", "tests/alerts.yml"]])
def test_promtool_passes(arguments: list[str]) -> None:
    done = subprocess.run([str(PROMTOOL), *arguments], cwd=FOLDER, capture_output=True, text=True)
    assert done.returncode == 0, done.stdout + done.stderr


def test_every_alert_has_a_case_that_fires_and_one_that_does_not() -> None:
    cases = [
        case for test in yaml.safe_load((FOLDER / "tests" / "alerts.yml").read_text())["tests"] for case in test.get("alert_rule_test", [])
    ]
    for name in (rule["alert"] for rule in rules() if "alert" in rule):
        fired = {bool(case["exp_alerts"]) for case in cases if case["alertname"] == name}
        assert fired == {True, False}, name


@pytest.mark.parametrize("log", [False, True])
def test_the_exposition_is_clean_and_has_what_the_alerts_ask_for(tmp_path: Path, log: bool) -> None:
    signature = Signature((Field("x", "number"),), ())
    live = Live(
        {"inputs": Profile.of(signature.inputs, {"x": np.arange(500.0)}).to_dict()},
        signature,
        Monitor(log=LogSettings(path=tmp_path if log else None)),
    )
    live.observe({"x": np.arange(1000.0)}, {})
    live.close()
    registry = CollectorRegistry()
    registry.register(live)
    text = generate_latest(registry)
    for name in ("groundup_drift_alarm", "groundup_monitor_dropped_batches_total", *["groundup_prediction_log_degraded"] * log):
        assert f"\n{name} ".encode() in text
    if PROMTOOL is not None:
        done = subprocess.run([PROMTOOL, "check", "metrics"], input=text, capture_output=True)
        assert done.returncode == 0, done.stderr.decode()
