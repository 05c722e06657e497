"""The loop is the algorithm: against hand-written steps, and against itself under what must not matter."""

from __future__ import annotations

import contextlib
import re
from dataclasses import replace
from pathlib import Path
from typing import Any

import numpy as np
import pytest
import torch
from small_training import Around, Notes, Small, classification, network
from torch import Tensor, nn

from groundup.errors import Interrupted, ModelError, RecipeError, StorageError
from groundup.progress import Task
from groundup.training import checkpoint
from groundup.training.arrays import Arrays
from groundup.training.loop import Fitted, fit, predict
from groundup.training.sampler import order
from groundup.training.settings import Train
from groundup.training.state import State
from groundup.training.surroundings import StopAfter


def settings(**given: Any) -> Train:
    return Train.model_validate({"epochs": 3, "batch_size": 8, **given})


def linear(seed: int = 0, n_outputs: int = 3) -> nn.Module:
    torch.manual_seed(seed)
    return nn.Linear(5, n_outputs)


def weights(model: nn.Module) -> Tensor:
    return torch.cat([v.detach().flatten().double() for v in model.state_dict().values()])


def same(a: dict[str, Tensor], b: dict[str, Tensor]) -> bool:
    return a.keys() == b.keys() and all(torch.equal(a[k], b[k]) for k in a)


@pytest.mark.parametrize("name", ["sgd", "adam", "adamw"])
def test_steps_are_those_of_a_hand_written_loop(name: str, around: Around) -> None:
    arrays, given = classification(n=61), settings(optimizer={"name": name, "lr": 0.05, "weight_decay": 0.1}, clip_norm=0.5, epochs=2)
    ours = linear()
    fitted = fit(ours, arrays, given, around)

    theirs = linear()
    groups = [{"params": [theirs.weight], "weight_decay": 0.1}, {"params": [theirs.bias], "weight_decay": 0.0}]
    optimizer: torch.optim.Optimizer = {
        "sgd": lambda: torch.optim.SGD(groups, lr=0.05, momentum=0.9),
        "adam": lambda: torch.optim.Adam(groups, lr=0.05),
        "adamw": lambda: torch.optim.AdamW(groups, lr=0.05),
    }[name]()
    X, y, step = torch.from_numpy(arrays.X), torch.from_numpy(arrays.y), 0
    for epoch in range(2):
        shuffled = torch.from_numpy(order(0, epoch, 61))
        for start in range(0, 61, 8):
            batch, step = shuffled[start : start + 8], step + 1
            u = (step - 1 - 1) / (16 - 1 - 1)  # 16 steps, one of warm-up
            for group in optimizer.param_groups:
                group["lr"] = 0.05 * (1.0 if step == 1 else (1 + np.cos(np.pi * u)) / 2)
            optimizer.zero_grad()
            nn.functional.cross_entropy(theirs(X[batch]), y[batch]).backward()
            nn.utils.clip_grad_norm_(theirs.parameters(), 0.5)
            optimizer.step()
    assert fitted.steps == step == 16
    assert max(float((fitted.last[k] - v).abs().max()) for k, v in theirs.state_dict().items()) < 1e-6


@pytest.mark.parametrize("weighting", ["none", "balanced"])
@pytest.mark.parametrize("n", [61, 64, 57])  # a short last step; none; one of a single sample, which joins the step before
def test_accumulation_equals_one_big_batch(n: int, weighting: str, tmp_path: Path) -> None:
    arrays = classification(n=n)
    common = {"class_weights": weighting, "label_smoothing": 0.1, "optimizer": {"name": "sgd", "lr": 0.1}}
    big, small = linear(), linear()
    a = fit(big, arrays, settings(batch_size=28, **common), Around(tmp_path / "a"))
    b = fit(small, arrays, settings(batch_size=7, accumulate=4, **common), Around(tmp_path / "b"))
    assert a.steps == b.steps
    assert float((weights(big) - weights(small)).abs().max()) < 2e-6
    assert a.history[-1]["train_loss"] == pytest.approx(b.history[-1]["train_loss"], rel=1e-5)


def test_order_within_a_batch_does_not_matter(tmp_path: Path) -> None:
    arrays = classification(n=16)
    turned = replace(arrays, X=arrays.X[::-1].copy(), y=arrays.y[::-1].copy())
    a, b = linear(), linear()
    fit(a, arrays, settings(batch_size=16), Around(tmp_path / "a"))
    fit(b, turned, settings(batch_size=16), Around(tmp_path / "b"))
    assert float((weights(a) - weights(b)).abs().max()) < 2e-6


EVERYTHING = {
    "plain": {},
    "ema": {"ema": 0.9},
    "accumulate": {"accumulate": 3, "batch_size": 4},
    "sgd, linear": {"optimizer": {"name": "sgd", "lr": 0.05}, "schedule": {"name": "linear", "warmup": 3}},
    "early stopping": {"early_stopping": {"metric": "loss", "patience": 2}, "epochs": 8, "optimizer": {"lr": 0.3}},
    "bf16": {"precision": "bf16"},
    "balanced, smoothed": {"class_weights": "balanced", "label_smoothing": 0.1},
    "augment": {"augment": {"shift": 1, "flip": True}},
}


def outcome(fitted: Fitted, model: nn.Module) -> tuple[dict[str, Tensor], dict[str, Tensor], Any, Any]:
    timing = ("seconds", "samples_per_second")
    return dict(model.state_dict()), fitted.last, fitted.best, [{k: v for k, v in row.items() if k not in timing} for row in fitted.history]


@pytest.mark.parametrize("name", EVERYTHING)
def test_stopped_anywhere_and_resumed_is_bit_for_bit_uninterrupted(name: str, tmp_path: Path) -> None:
    shape = (2, 3, 5) if name == "augment" else (5,)
    arrays, given = classification(n=29, shape=shape), settings(**EVERYTHING[name])
    n_features = int(np.prod(shape))
    whole = network(n_features=n_features)
    through = outcome(fit(whole, arrays, given, Around(tmp_path / "whole"), fingerprint="f"), whole)
    for looks in range(0, 11, 3):
        work, stops = tmp_path / str(looks), 0
        while True:
            model = network(seed=1, n_features=n_features)  # other initial weights: all must come from the checkpoint
            if stops == 0:
                model = network(n_features=n_features)
            try:
                fitted = fit(model, arrays, given, Around(work, stopping=StopAfter(looks)), fingerprint="f")
                break
            except Interrupted:
                stops += 1
                assert stops < 50
        resumed = outcome(fitted, model)
        assert stops >= 1 or looks >= 9  # the shortest training here looks nine times
        assert same(through[0], resumed[0])
        assert same(through[1], resumed[1])
        assert through[2:] == resumed[2:]


def test_a_checkpoint_of_another_training_is_not_resumed(tmp_path: Path) -> None:
    arrays = classification()
    with pytest.raises(Interrupted):
        fit(network(), arrays, settings(), Around(tmp_path, stopping=StopAfter(3)), fingerprint="one")
    around = Around(tmp_path)
    fitted = fit(network(), arrays, settings(), around, fingerprint="two")
    assert fitted.steps == 3 * 8
    assert isinstance(around.progress, Notes)
    assert any("another model, data or setting" in line for line in around.progress.lines)


def test_checkpoints_of_another_training_do_not_take_the_place_of_this_ones(tmp_path: Path) -> None:
    """The folder holds later steps of other settings: what this training saves is there when it goes on."""
    arrays, given = classification(), settings(checkpoint={"seconds": 0})
    with pytest.raises(Interrupted):
        fit(network(), arrays, given, Around(tmp_path, stopping=StopAfter(15)), fingerprint="one")
    later = max(int(p.name[:8]) for p in tmp_path.glob("*.safetensors"))
    with pytest.raises(Interrupted):
        fit(network(), arrays, given, Around(tmp_path, stopping=StopAfter(4)), fingerprint="two")
    kept = sorted(int(p.name[:8]) for p in tmp_path.glob("*.safetensors"))
    assert len(kept) <= checkpoint.KEEP
    assert kept[-1] == 5 < later == 16
    around, model, whole = Around(tmp_path), network(seed=3), network()
    fit(model, arrays, given, around, fingerprint="two")
    assert isinstance(around.progress, Notes)
    assert around.progress.lines[0].startswith("resumed at step 5 of 24")
    fit(whole, arrays, given, Around(tmp_path / "whole"))
    assert same(whole.state_dict(), model.state_dict())


def test_a_killed_saving_beside_another_training_loses_nothing(tmp_path: Path) -> None:
    """Between the new file's name and the removal of the old ones a kill leaves both trainings' files."""
    arrays, given = classification(), settings(checkpoint={"seconds": 0})
    for fingerprint, looks in (("two", 4), ("one", 15)):
        with pytest.raises(Interrupted):
            fit(network(), arrays, given, Around(tmp_path / fingerprint, stopping=StopAfter(looks)), fingerprint=fingerprint)
    for path in (tmp_path / "one").iterdir():
        path.rename(tmp_path / "two" / path.name)
    around = Around(tmp_path / "two")
    fit(network(seed=3), arrays, given, around, fingerprint="two")
    assert isinstance(around.progress, Notes)
    assert around.progress.lines[0].startswith("resumed at step 5 of 24")


def test_a_damaged_checkpoint_falls_back_to_the_one_before(tmp_path: Path) -> None:
    arrays, given = classification(), settings(checkpoint={"seconds": 0})
    whole = network()
    fit(whole, arrays, given, Around(tmp_path / "whole"))
    work = tmp_path / "work"
    with pytest.raises(Interrupted):
        fit(network(), arrays, given, Around(work, stopping=StopAfter(9)))
    newest, before = sorted(work.glob("*.safetensors"), reverse=True)
    data = bytearray(newest.read_bytes())
    data[len(data) // 2] ^= 1
    newest.write_bytes(bytes(data))
    around, model = Around(work), network(seed=3)
    fit(model, arrays, given, around)
    assert isinstance(around.progress, Notes)
    assert f"checkpoint of step {int(newest.name[:8])} cannot be used" in around.progress.lines[0]
    assert f"resumed at step {int(before.name[:8])}" in around.progress.lines[1]
    assert same(whole.state_dict(), model.state_dict())


def test_deterministic_mode_repeats_and_seeds_differ(tmp_path: Path) -> None:
    arrays = classification()
    runs = []
    for i, seed in enumerate([0, 0, 1]):
        model = network()
        fit(model, arrays, settings(deterministic=True), Around(tmp_path / str(i), seed=seed))
        runs.append(model.state_dict())
    assert same(runs[0], runs[1])
    assert not same(runs[0], runs[2])
    assert not torch.are_deterministic_algorithms_enabled()


def test_the_callers_random_numbers_are_left_alone(around: Around) -> None:
    torch.manual_seed(5)
    np.random.seed(5)
    expected = torch.rand(3), np.random.rand(3)
    torch.manual_seed(5)
    np.random.seed(5)
    with torch.random.fork_rng(devices=[]):
        model = network()
    fit(model, classification(), settings(), around)
    assert torch.equal(expected[0], torch.rand(3))
    assert np.array_equal(expected[1], np.random.rand(3))


def test_bf16_trains_in_autocast_with_weights_in_fp32(around: Around) -> None:
    seen: list[torch.dtype] = []
    model = network()
    model.hidden.register_forward_hook(lambda module, given, answer: seen.append(answer.dtype))
    fitted = fit(model, classification(), settings(precision="bf16", epochs=15), around)
    assert fitted.precision == "bf16"
    assert set(seen) == {torch.bfloat16}
    assert {v.dtype for v in model.parameters()} == {torch.float32}
    assert fitted.history[-1]["train_loss"] < fitted.history[0]["train_loss"]


def test_the_best_epoch_is_kept_and_patience_ends_the_training(around: Around) -> None:
    """A learning rate that explodes after a good start: later epochs are worse."""
    arrays = classification(n=200)
    given = settings(
        epochs=40, optimizer={"name": "sgd", "lr": 3.0}, schedule={"name": "constant", "warmup": 0}, clip_norm=None,
        early_stopping={"metric": "log_loss", "patience": 3},
    )  # fmt: skip
    model = linear()
    fitted = fit(model, arrays, given, around)
    losses = [row["log_loss"] for row in fitted.history]
    assert fitted.best["log_loss"] == min(losses)
    assert fitted.best["epoch"] == losses.index(min(losses)) + 1
    assert len(losses) == fitted.best["epoch"] + 3 < 40
    scores = predict(model, arrays.X_val)
    assert float(nn.functional.cross_entropy(scores, torch.from_numpy(arrays.y_val))) == pytest.approx(min(losses), rel=1e-5)
    assert not same(dict(model.state_dict()), fitted.last)


def test_ema_is_what_is_evaluated_and_kept(around: Around) -> None:
    decay, model, arrays = 0.8, linear(), classification(n=16)
    averages = {k: v.clone() for k, v in model.state_dict().items()}
    live: list[dict[str, Tensor]] = []
    given = settings(batch_size=16, epochs=5, ema=decay)
    plain = linear()
    for epochs in range(1, 6):  # the weights after each step, from trainings without an average of the same schedule
        stopped = linear()
        with contextlib.suppress(Interrupted):
            fit(stopped, arrays, settings(batch_size=16, epochs=5), Around(around.work / str(epochs), stopping=StopAfter(epochs - 1)))
        found = checkpoint.newest(around.work / str(epochs), "", print)
        assert found is not None
        live.append(checkpoint.under("model", found[0]))
    for t, now in enumerate(live, start=1):
        d = min(decay, (1 + t) / (10 + t))
        averages = {k: d * averages[k] + (1 - d) * now[k] for k in averages}
    fitted = fit(plain, arrays, given, around)
    assert max(float((fitted.last[k] - averages[k]).abs().max()) for k in averages) < 1e-6


@pytest.mark.parametrize("precision", ["fp32", "bf16"])
def test_a_loss_that_is_not_finite_stops_with_epoch_step_and_the_last_good_weights(precision: str, around: Around) -> None:
    class Bomb(Small):
        calls = 0

        def forward(self, X: Tensor) -> Tensor:
            if self.training:
                Bomb.calls += 1
            return super().forward(X) * (float("nan") if Bomb.calls == 8 + 3 else 1.0)

    torch.manual_seed(0)
    with pytest.raises(ModelError, match=r"loss became nan in epoch 2, step 11 of 24; .*train\.optimizer\.lr=0\.0003") as error:
        fit(Bomb(), classification(n=64), settings(precision=precision), around)
    path = re.search(r"are in (\S+\.safetensors)", str(error.value))
    assert path is not None
    found = checkpoint.newest(Path(path[1]).parent, "", print)
    assert found is not None
    good = network()
    good.load_state_dict(found[0])
    assert all(bool(torch.isfinite(v).all()) for v in good.state_dict().values())
    assert ("train.precision=fp32" in str(error.value)) == (precision == "bf16")


def test_weights_that_are_not_finite_are_never_saved(around: Around) -> None:
    model = network()

    class Spoil(StopAfter):
        def is_set(self) -> bool:
            with torch.no_grad():
                model.hidden.weight[0, 0] = float("inf")
            return super().is_set()

    with pytest.raises(ModelError, match="weights are not finite"):
        fit(model, classification(), settings(), Around(around.work, stopping=Spoil(0)))
    assert list(around.work.glob("*.safetensors")) == []


def test_a_full_disk_is_a_storage_error_and_leaves_no_file(around: Around, monkeypatch: pytest.MonkeyPatch) -> None:
    def full(fd: int) -> None:
        raise OSError(28, "No space left on device")

    monkeypatch.setattr("groundup.training.checkpoint.os.fsync", full)
    with pytest.raises(StorageError, match="the disk is full"):
        fit(network(), classification(), settings(checkpoint={"seconds": 0}), around)
    assert list(around.work.iterdir()) == []


def test_bytes_that_read_back_differently_are_no_checkpoint(around: Around, monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.setattr("groundup.training.checkpoint.sha256", lambda path: "0" * 64)
    with pytest.raises(StorageError, match="read back"):
        fit(network(), classification(), settings(checkpoint={"seconds": 0}), around)
    assert list(around.work.iterdir()) == []


def test_regression_is_learned_on_standardized_targets(around: Around) -> None:
    draw = np.random.default_rng(0)
    X = draw.normal(size=(331, 5)).astype(np.float32)
    y = 1000 + 50 * (X @ np.array([1, -2, 0.5, 0, 1])) + draw.normal(size=331)
    arrays = Arrays("tabular-regression", X[:251], y[:251], X[251:], y[251:], 1, float(y[:251].std()), float(y[:251].mean()))
    model = linear(n_outputs=1)
    fitted = fit(model, arrays, settings(epochs=30, optimizer={"lr": 0.05}), around)
    assert fitted.best["r2"] > 0.99
    assert fitted.history[-1]["train_loss"] < 0.02  # in units of the variance


def test_an_unknown_metric_of_the_task_is_refused_with_the_known_ones(around: Around) -> None:
    with pytest.raises(RecipeError, match=r"r2.*is no metric of tabular-classification; expected one of loss, accuracy"):
        fit(network(), classification(), settings(early_stopping={"metric": "r2"}), around)


def test_augmentation_of_a_table_is_refused(around: Around) -> None:
    with pytest.raises(RecipeError, match=r"augment is for images.*\(5,\)"):
        fit(network(), classification(), settings(augment={"shift": 1}), around)


def test_progress_counts_every_sample_and_metrics_every_epoch(around: Around) -> None:
    logged: list[tuple[dict[str, float], int]] = []
    around.log_metrics = lambda metrics, step: logged.append((metrics, step))
    total: list[float] = []

    before = Task.advance

    def advance(self: Task, amount: float = 1, **numbers: float | str) -> None:
        total.append(amount)
        before(self, amount, **numbers)

    with pytest.MonkeyPatch.context() as patch:
        patch.setattr(Task, "advance", advance)
        fit(network(), classification(n=61), settings(), around)
    assert sum(total) == 3 * 61
    assert [step for _, step in logged] == [1, 2, 3]
    assert {"train_loss", "accuracy", "lr", "samples_per_second"} <= logged[0][0].keys()


def test_saving_does_not_change_the_training(tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> None:
    arrays, saves = classification(), []
    save = State.save
    monkeypatch.setattr(State, "save", lambda self, folder, seconds: saves.append(1) or save(self, folder, seconds))
    models = [network(), network()]
    fit(models[0], arrays, settings(checkpoint={"seconds": 1e9}), Around(tmp_path / "a"))
    assert not saves
    fit(models[1], arrays, settings(checkpoint={"seconds": 1e9, "epochs": 1}), Around(tmp_path / "b"))
    assert len(saves) == 3
    assert same(models[0].state_dict(), models[1].state_dict())
    assert len(list((tmp_path / "b").glob("*.safetensors"))) == checkpoint.KEEP
