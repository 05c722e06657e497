import json
import threading

import numpy as np
import pytest
from hypothesis import given, settings
from hypothesis import strategies as st
from scipy import stats
from traffic import FIELDS, draw, false_alarms

from groundup.bundle.signature import Field
from groundup.errors import BundleError
from groundup.monitoring.drift import Drift, compare
from groundup.monitoring.profile import Bins, Profile
from groundup.monitoring.settings import DriftSettings

NUMBER = [Field("x", "number", nullable=True)]
OUTPUTS = [Field("label", "category"), Field("probabilities", "tensor", (3,))]


def normal(n: int, seed: int, shift: float = 0.0) -> dict[str, np.ndarray]:
    return {"x": shift + np.random.default_rng([seed, 7]).normal(size=n)}


def drift(training: dict[str, np.ndarray], fields=NUMBER, **options) -> Drift:
    profile = {"inputs": json.loads(json.dumps(Profile.of(fields, training).to_dict()))}
    return Drift(profile, DriftSettings(**options))


def power(shifted, n: int, *, state: tuple[str, ...], trials: int = 60, m: int = 5000) -> float:
    watch = drift(normal(m, 0), window=n)
    found = [watch.update(shifted(seed))[0].scores["x"].state in state for seed in range(1, trials + 1)]
    return float(np.mean(found))


# ── how often it is wrong ───────────────────────────────────────────────────────────────────────────────────────────────
@pytest.mark.parametrize(("n", "m"), [(50, 5000), (200, 5000), (1000, 500), (1000, 5000)])
def test_false_alarms_are_as_rare_as_declared(n: int, m: int) -> None:
    shifted, _ = false_alarms(n, 60, m=m, references=12)
    assert shifted <= stats.binom.ppf(0.9999, 60, 0.01)


@pytest.mark.slow
@pytest.mark.parametrize("exact", [True, False])
@pytest.mark.parametrize("n", [50, 200, 1000])
def test_false_alarms_over_a_thousand_windows(n: int, exact: bool) -> None:
    shifted, drifted = false_alarms(n, 1000, m=20_000, references=20, exact=exact)
    assert shifted <= stats.binom.ppf(0.999, 1000, 0.01)
    assert drifted <= shifted


@pytest.mark.slow
def test_false_alarms_of_large_windows() -> None:
    shifted, drifted = false_alarms(100_000, 100, m=100_000, references=10)
    assert shifted <= stats.binom.ppf(0.999, 100, 0.01)
    assert drifted == 0


def test_p_values_are_uniform_or_larger_where_the_chi_square_is_used() -> None:
    bins = Profile.of([Field("x", "category")], {"x": np.random.default_rng(0).choice(list("abcdef"), 5000).astype(object)}).bins
    assert bins is not None
    r = np.random.default_rng(1)
    share = bins["x"].counts[:-2] / bins["x"].counts.sum()
    p = [compare(bins["x"], np.append(r.multinomial(500, share), [0, 0])).p for _ in range(1000)]
    for level in (0.01, 0.05, 0.2):
        assert np.mean(np.array(p) <= level) <= stats.binom.ppf(0.999, 1000, level) / 1000


def test_p_values_of_a_number_pay_for_the_several_tests_made() -> None:
    r, p = np.random.default_rng(2), []
    for _ in range(40):  # training samples
        bins = Profile.of(NUMBER, {"x": r.normal(size=5000)}).bins
        assert bins is not None
        p += [compare(bins["x"], bins["x"].count(r.normal(size=500))).p for _ in range(50)]
    for level in (0.01, 0.05, 0.2):
        assert np.mean(np.array(p) <= level) <= stats.binom.ppf(0.999, len(p), level) / len(p)


# ── what it finds ───────────────────────────────────────────────────────────────────────────────────────────────────────
def test_a_quarter_of_a_standard_deviation_is_found_in_2000_rows() -> None:
    assert power(lambda s: normal(2000, s, 0.25), 2000, state=("shifted", "drifted")) >= 0.9


def test_a_large_shift_raises_the_alarm_in_few_rows() -> None:
    assert power(lambda s: normal(100, s, 1.0), 100, state=("drifted",)) >= 0.9


def test_outliers_do_not_hide_a_shift() -> None:
    def outlying(x: dict[str, np.ndarray], seed: int) -> dict[str, np.ndarray]:
        x["x"][np.random.default_rng(seed).random(len(x["x"])) < 0.001] = 1e6
        return x

    watch = drift(outlying(normal(10_000, 0), 1), window=2000)
    assert all(watch.update(outlying(normal(2000, s, 2.0), s))[0].alarm for s in range(20))


def test_missing_values_that_appear_raise_the_alarm() -> None:
    def holes(seed: int) -> dict[str, np.ndarray]:
        x = normal(1000, seed)["x"]
        x[np.random.default_rng(seed).random(1000) < 0.2] = np.nan
        return {"x": x}

    assert power(holes, 1000, state=("drifted",)) == 1.0


def test_a_new_category_raises_the_alarm_and_is_named() -> None:
    fields, r = [Field("c", "category"), Field("same", "number")], np.random.default_rng(0)
    watch = drift({"c": r.choice(["a", "b"], 5000).astype(object), "same": r.normal(size=5000)}, fields)
    (window,) = watch.update({"c": r.choice(["a", "b", "new"], 1000).astype(object), "same": r.normal(size=1000)})
    assert window.columns("drifted") == ["c"]
    assert watch.shares(window)["c"]["window"][-2] == pytest.approx(1 / 3, abs=0.05)  # "(other)"


def test_values_beyond_a_constant_are_found_on_either_side() -> None:
    for value in (2.0, 4.0):
        (window,) = drift({"x": np.full(2000, 3.0)}).update({"x": np.where(np.arange(1000) % 5, 3.0, value)})
        assert window.alarm


def test_drift_of_the_answers() -> None:
    r = np.random.default_rng(0)

    def answers(n: int, alpha: list[float]) -> dict[str, np.ndarray]:
        p = r.dirichlet(alpha, n).astype(np.float32)
        return {"label": np.array(["a", "b", "c"], object)[p.argmax(1)], "probabilities": p}

    profile = {"inputs": Profile.of(NUMBER, normal(5000, 0)).to_dict(), "outputs": Profile.of(OUTPUTS, answers(5000, [1, 1, 1])).to_dict()}
    watch = Drift(profile)
    assert not watch.update(normal(1000, 1), answers(1000, [1, 1, 1]))[0].alarm
    (window,) = watch.update(normal(1000, 2), answers(1000, [6, 1, 1]))
    assert set(window.columns("drifted")) == {"output:label", "output:probabilities.top"}
    assert window.scores["x"].state == "same"


def test_a_tiny_difference_in_a_million_rows_is_not_an_alarm() -> None:
    (window,) = drift(normal(1_000_000, 0), window=1_000_000).update(normal(1_000_000, 1, 0.02))
    assert window.scores["x"].state == "shifted"
    assert not window.alarm


# ── windows ─────────────────────────────────────────────────────────────────────────────────────────────────────────────
@settings(max_examples=25, deadline=None)
@given(st.lists(st.integers(1, 700), min_size=1, max_size=12))
def test_windows_are_the_same_however_the_rows_arrive(sizes: list[int]) -> None:
    x = normal(sum(sizes), 3)["x"]
    whole, pieces = drift(normal(2000, 0), window=500), drift(normal(2000, 0), window=500)
    expected = whole.update({"x": x}, times=np.arange(len(x), dtype=float))
    got, at = [], 0
    for n in sizes:
        got += pieces.update({"x": x[at : at + n]}, times=np.arange(at, at + n, dtype=float))
        at += n
    assert [(w.started, w.closed, w.rows, w.scores) for w in got] == [(w.started, w.closed, w.rows, w.scores) for w in expected]
    assert all(w.rows == 500 and w.closed - w.started == 499 for w in got)
    assert pieces.scores()["open"]["rows"] == sum(sizes) % 500


def test_an_old_window_is_tested_or_dropped() -> None:
    clock = [0.0]
    profile = {"inputs": Profile.of(NUMBER, normal(2000, 0)).to_dict()}
    watch = Drift(profile, DriftSettings(max_age_s=60), monotonic=lambda: clock[0])
    watch.update(normal(150, 1, 3.0))
    clock[0] = 59
    assert watch.expire() == []
    clock[0] = 61
    (window,) = watch.expire()
    assert window.alarm
    assert window.rows == 150
    watch.update(normal(20, 2))
    clock[0] = 200
    assert watch.expire() == []
    assert watch.dropped_rows == 20
    watch.update(normal(10, 3))
    assert watch.scores()["open"]["rows"] == 10


def test_the_alarm_falls_when_the_traffic_is_as_before() -> None:
    watch = drift(normal(5000, 0))
    watch.update(normal(1000, 1, 2.0))
    assert watch.alarm
    watch.update(normal(1000, 2))
    assert not watch.alarm
    assert [bool(w["drifted"]) for w in watch.scores()["history"]] == [True, False]
    assert watch.scores()["expected_false_alarms"] == pytest.approx(0.02)


# ── whatever comes ──────────────────────────────────────────────────────────────────────────────────────────────────────
COLUMN = st.sampled_from(["usual", "null", "constant", "infinite", "huge", "empty string", "new", "absent", "wrong shape", "wrong type"])


@settings(max_examples=60, deadline=None)
@given(COLUMN, COLUMN, st.integers(1, 300))
def test_no_content_of_a_column_raises_or_hides_the_others(training: str, live: str, n: int) -> None:
    fields = [Field("x", "number", nullable=True), Field("c", "category", nullable=True), Field("witness", "number")]

    def make(what: str, n: int, seed: int) -> dict[str, np.ndarray]:
        r = np.random.default_rng(seed)
        numbers = {"null": np.full(n, np.nan), "constant": np.ones(n), "infinite": np.full(n, np.inf), "huge": np.full(n, 1e308)}
        words = {"null": np.full(n, None), "empty string": np.full(n, ""), "new": np.array([f"n{i}" for i in range(n)])}
        arrays = {
            "x": numbers.get(what, r.normal(size=n)),
            "c": words.get(what, r.choice(["a", "b"], n)).astype(object),
            "witness": r.normal(size=n) + (4 if seed else 0),
        }
        if what == "absent":
            del arrays["x"], arrays["c"]
        if what == "wrong shape" and seed:
            arrays["x"] = r.normal(size=(n, 3))
        if what == "wrong type" and seed:
            arrays["x"] = np.array([object()] * n)
        return arrays

    watch = drift(make(training, 400, 0), fields, window=300, min_rows=30)
    watch.update(make(live, n, 1))
    windows = watch.update(make(live, 300, 2))
    assert windows[0].scores["witness"].state == "drifted"
    assert watch.failures >= (live in ("wrong shape", "wrong type"))
    json.dumps(watch.scores(), allow_nan=False)


def test_a_batch_of_a_wrong_shape_costs_only_itself() -> None:
    watch = drift(normal(2000, 0), window=300)
    watch.update(normal(100, 1))
    watch.update({"x": np.zeros((100, 2))})
    (window,) = watch.update(normal(100, 2))
    assert window.counts["x"].sum() == 200
    assert watch.failures == 1


def test_an_empty_training_column_is_never_drifted() -> None:
    watch = drift({"x": np.empty(0)})
    assert watch.update(normal(1000, 0))[0].scores["x"].p == 1


def test_an_unfrozen_profile_is_refused() -> None:
    with pytest.raises(BundleError, match="freeze"):
        Drift({"inputs": Profile.start(NUMBER).to_dict()})


def test_counts_of_a_sketch_are_worth_less() -> None:
    window = np.array([560.0, 440.0, 0.0])
    counts = np.array([50_000.0, 50_000.0, 0.0])
    exact, sketched = (compare(Bins(np.array([0.0]), None, counts, rows), window) for rows in (100_000.0, 2_000.0))
    assert exact.p < sketched.p


def test_psi_of_equal_shares_is_zero_and_of_opposite_ones_large() -> None:
    bins = Bins(None, ["a", "b"], np.array([800.0, 200.0, 0.0, 0.0]), 1000.0)
    assert compare(bins, np.array([80, 20, 0, 0])).psi == pytest.approx(0, abs=2e-3)
    assert compare(bins, np.array([200, 800, 0, 0])).psi == pytest.approx(2 * 0.6 * np.log(4), rel=0.02)


def test_what_chance_gives_is_taken_off_the_index() -> None:
    watch = drift(normal(5000, 0), window=100)
    scores = [watch.update(normal(100, seed))[0].scores["x"] for seed in range(1, 201)]
    chance = (1 / 100 + 1 / 5000) * 9
    assert np.mean([s.psi for s in scores]) == pytest.approx(chance, rel=0.2)
    assert np.mean([s.excess for s in scores]) < 0.3 * chance


def test_many_threads_count_every_row_once() -> None:
    watch = drift(draw(np.random.default_rng(0), 2000), FIELDS, window=100_000)
    batch = draw(np.random.default_rng(1), 50)

    def send() -> None:
        for _ in range(40):
            watch.update(batch)
            watch.scores()

    threads = [threading.Thread(target=send) for _ in range(4)]
    for t in threads:
        t.start()
    for t in threads:
        t.join()
    (window,) = watch.finish()
    assert window.rows == 4 * 40 * 50
    assert all(counts.sum() == window.rows for counts in window.counts.values())
