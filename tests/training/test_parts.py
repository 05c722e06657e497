"""The parts of the loop: schedules, sampler, losses, augmentation, optimizers."""

from __future__ import annotations

import itertools
import math

import numpy as np
import pytest
import torch
from hypothesis import given
from hypothesis import strategies as st
from pydantic import ValidationError
from torch import nn

from groundup.training import losses, optimizers, sampler, schedules
from groundup.training.augment import Augmenter
from groundup.training.settings import Augment, Optimizer, Schedule, Train


@pytest.mark.parametrize("name", ["linear", "cosine"])
def test_schedules_against_torch(name: str) -> None:
    """Torch's own schedulers, stepped once a step, warm-up included."""
    total, warm = 37, 5
    schedule = Schedule.model_validate({"name": name, "warmup": warm, "final": 0.1})
    parameter = nn.Parameter(torch.zeros(1))
    optimizer = torch.optim.SGD([parameter], lr=1.0)
    rise = torch.optim.lr_scheduler.LinearLR(optimizer, 1 / warm, 1.0, warm - 1)
    steps = total - warm - 1
    fall: torch.optim.lr_scheduler.LRScheduler
    if name == "linear":
        fall = torch.optim.lr_scheduler.LinearLR(optimizer, 1.0, 0.1, steps)
    else:
        fall = torch.optim.lr_scheduler.CosineAnnealingLR(optimizer, steps, 0.1)
    both = torch.optim.lr_scheduler.SequentialLR(optimizer, [rise, fall], [warm])
    for t in range(1, total + 1):
        assert schedules.factor(schedule, t, total) == pytest.approx(optimizer.param_groups[0]["lr"], abs=1e-9), t
        optimizer.step()
        both.step()


def test_schedules_closed_forms() -> None:
    def at(t: int, **keys: object) -> float:
        return schedules.factor(Schedule.model_validate(keys), t, 100)

    assert [at(t, name="constant", warmup=0.1) for t in (1, 5, 10, 11, 100)] == [0.1, 0.5, 1, 1, 1]
    assert at(11, name="cosine", warmup=10) == 1
    assert at(100, name="cosine", warmup=10, final=0.25) == 0.25
    assert [at(t, name="step", warmup=0, every=0.3, factor=0.1) for t in (30, 31, 61, 91)] == pytest.approx([1, 0.1, 0.01, 0.001])
    assert at(40, name="inverse-sqrt", warmup=10) == pytest.approx(math.sqrt(10 / 40))


@given(st.integers(1, 500), st.integers(1, 64), st.booleans())
def test_steps_cover_every_sample_once_and_none_is_lone(n: int, size: int, drop_last: bool) -> None:
    cuts = sampler.steps(n, size, drop_last)
    assert cuts[0][0] == 0
    assert all(a[1] == b[0] for a, b in itertools.pairwise(cuts))
    sizes = [stop - start for start, stop in cuts]
    if drop_last:
        assert sizes == [size] * (n // size) if n >= size else sizes == [n]
    else:
        assert sum(sizes) == n
        assert max(sizes) <= size + 1
        assert min(sizes) > 1 or size == 1 or n == 1


def test_the_order_is_a_permutation_that_seed_and_epoch_decide() -> None:
    a = sampler.order(3, 5, 101)
    assert sorted(a) == list(range(101))
    assert np.array_equal(a, sampler.order(3, 5, 101))
    assert not np.array_equal(a, sampler.order(3, 6, 101))
    assert not np.array_equal(a, sampler.order(4, 5, 101))


@pytest.mark.parametrize("weighted", [False, True])
def test_the_mean_of_parts_weighed_by_mass_is_the_mean_of_all(weighted: bool) -> None:
    torch.manual_seed(0)
    scores, y = torch.randn(13, 3), torch.randint(0, 3, (13,))
    loss = losses.Loss(False, 0.1, losses.balanced_weights(y, 3) if weighted else None)
    parts = sum(loss(scores[a:b], y[a:b]) * loss.mass(y[a:b]) / loss.mass(y) for a, b in ((0, 5), (5, 12), (12, 13)))
    assert float(parts) == pytest.approx(float(loss(scores, y)), rel=1e-6)


def test_balanced_weights_are_scikit_learns() -> None:
    from sklearn.utils.class_weight import compute_class_weight

    y = np.array([0, 0, 0, 1, 1, 2, 2, 2, 2, 2])
    ours = losses.balanced_weights(torch.from_numpy(y), 3).numpy()
    assert ours == pytest.approx(compute_class_weight("balanced", classes=np.arange(3), y=y))


def test_vectors_do_not_decay() -> None:
    model = nn.Sequential(nn.Linear(3, 5), nn.BatchNorm1d(5))
    groups = optimizers.build(Optimizer(weight_decay=0.3), model).param_groups
    assert [(g["weight_decay"], sorted(tuple(p.shape) for p in g["params"])) for g in groups] == [
        (0.3, [(5, 3)]),
        (0.0, [(5,), (5,), (5,)]),
    ]
    assert all(g["fused"] for g in groups)


def test_shifts_and_flips_are_those_of_numpy() -> None:
    images = np.arange(4 * 2 * 3 * 5, dtype=np.float32).reshape(4, 2, 3, 5)
    augment = Augmenter(Augment(shift=2, flip=True), seed=0, epoch=1, n=11)
    samples = torch.tensor([7, 0, 3, 10])
    changed = augment(torch.from_numpy(images), samples).numpy()
    for image, got, i in zip(images, changed, samples, strict=True):
        down, right = augment.shifts[i].tolist()
        expected = np.pad(image, ((0, 0), (2, 2), (2, 2)), "edge")[:, 2 - down : 5 - down, 2 - right : 7 - right]
        if augment.flips[i]:
            expected = expected[:, :, ::-1]
        assert np.array_equal(got, expected)
    many = Augmenter(Augment(shift=2, flip=True), 0, 1, 4000)
    assert set(many.shifts.flatten().tolist()) == {-2, -1, 0, 1, 2}
    assert 0.45 < float(many.flips.float().mean()) < 0.55


def test_an_augmented_sample_depends_on_epoch_and_sample_alone() -> None:
    images = torch.rand(6, 1, 4, 4)
    augment = Augmenter(Augment(shift=1), 0, 2, 6)
    whole = augment(images, torch.arange(6))
    assert torch.equal(whole[4:], augment(images[4:], torch.arange(4, 6)))
    assert not torch.equal(whole, Augmenter(Augment(shift=1), 0, 3, 6)(images, torch.arange(6)))


@pytest.mark.parametrize(
    ("given_", "said"),
    [
        ({"epochs": 0}, "greater than or equal to 1"),
        ({"optimizer": {"lr": -1}}, "greater than 0"),
        ({"optimizer": {"name": "adamm"}}, "'sgd', 'adam' or 'adamw'"),
        ({"early_stopping": {"metric": "acuracy"}}, "unknown metric 'acuracy'; known are loss, accuracy"),
        ({"epoch": 3}, "Extra inputs"),
        ({"ema": 1.0}, "less than 1"),
    ],
)
def test_settings_refuse(given_: dict[str, object], said: str) -> None:
    with pytest.raises(ValidationError, match=said):
        Train.model_validate(given_)


def test_hyphens_and_underscores_are_the_same() -> None:
    assert Train.model_validate({"batch-size": 3, "early-stopping": {"min-delta": 1}}) == Train.model_validate(
        {"batch_size": 3, "early_stopping": {"min_delta": 1}}
    )
