"""Escaping, number forms and the geometry of plots."""

from __future__ import annotations

import re

import pytest
from hypothesis import given, settings
from hypothesis import strategies as st

from groundup.reporting import format as fmt
from groundup.reporting import svg
from groundup.reporting.html import EMPTY, Html, more, section, table, tag, text


@settings(deadline=None)
@given(st.text())
def test_text_never_opens_a_tag_or_leaves_an_attribute(content):
    assert not set('<>"') & set(text(content))
    assert tag("p", content, title=content).count('"') == 2


def test_markup_passes_and_everything_else_does_not():
    assert tag("b", Html("<i>x</i>"), "<i>") == "<b><i>x</i>&lt;i&gt;</b>"
    assert text(None) == "–"
    assert text("a\u202eb\x00\x7f") == "a\ufffdb\ufffd\ufffd"
    assert text("naïve 日本 👩‍🔬\u202f%") == "naïve 日本 👩‍🔬\u202f%"
    assert tag("img", src="a", alt=None) == '<img src="a">'
    assert tag("meta", name="viewport", http_equiv="x") == '<meta name="viewport" http-equiv="x">'


def test_empty_parts_vanish():
    assert table(("a",), []) == EMPTY
    assert section("x", "X", EMPTY, EMPTY, lead="words") == EMPTY
    assert svg.lines([svg.Series("a", [(0, float("nan"))])], "x", "y", "t") == EMPTY
    assert svg.bars([], "t") == svg.scatter([], "x", "y", "t") == svg.reliability([], "t") == svg.spark([], "t") == EMPTY
    assert "open" not in more("a", "b")
    assert "open" in more("a", "b", opened=True)


@pytest.mark.parametrize(
    ("write", "value", "shown"),
    [
        (fmt.number, 1234567, "1,234,567"),
        (fmt.number, -0.5, "−0.5"),
        (fmt.number, 0.0000123, "1.23·10⁻⁵"),
        (fmt.number, 12345.6, "12,346"),
        (fmt.number, None, "–"),
        (fmt.number, float("nan"), "–"),
        (fmt.number, 2.5e20, "250,000,000,000,000,000,000"),
        (fmt.tick, 400000, "400k"),
        (fmt.tick, 1500000.0, "1.5M"),
        (fmt.tick, 1500, "1,500"),
        (fmt.tick, -20000, "−20k"),
        (fmt.percent, 0.9749, "97.5\u202f%"),
        (fmt.size, 106_000, "106\u202fkB"),
        (fmt.size, 12, "12\u202fB"),
        (fmt.size, 2.5e6, "2.5\u202fMB"),
        (fmt.milliseconds, 0.0085, "8.5\u202fµs"),
        (fmt.milliseconds, 15.04, "15\u202fms"),
        (fmt.milliseconds, 2500, "2.5\u202fs"),
        (fmt.seconds, 0.02, "20\u202fms"),
        (fmt.seconds, 125, "2\u202fmin 5\u202fs"),
        (fmt.seconds, 7200, "2\u202fh 0\u202fmin"),
        (fmt.times, 1.0, "1.00\u202f×"),
        (fmt.times, 12.34, "12.3\u202f×"),
        (fmt.plain, [1, None, True], "[1, –, yes]"),
        (fmt.plain, "", "–"),
    ],
)
def test_forms(write, value, shown):
    assert write(value) == shown


def test_metrics_and_differences():
    assert fmt.metric("accuracy", 0.975) == "97.5\u202f%"
    assert fmt.metric("roc_auc", 0.99973) == "0.9997"
    assert fmt.metric("rmse", 54283.2) == "54,283"
    assert fmt.difference("accuracy", -0.011) == "−1.1\u202fpp"
    assert fmt.difference("log_loss", 0.0308) == "+0.0308"
    assert fmt.interval("accuracy", {"low": 0.953, "high": 0.987}) == "95.3 – 98.7\u202f%"
    assert fmt.interval("accuracy", {"low": None, "high": None}) == ""


@settings(deadline=None)
@given(st.floats(-1e9, 1e9), st.floats(1e-6, 1e9))
def test_ticks_are_few_round_and_inside(low, span):
    high = low + span
    if not high > low:
        return
    found = svg.ticks(low, high)
    assert len(found) <= 7
    slack = 1e-6 * max(abs(low), abs(high), span)
    assert all(low - slack <= t <= high + slack for t in found)
    assert found == sorted(found)


@settings(deadline=None)
@given(st.lists(st.tuples(st.floats(-1e6, 1e6), st.floats(-1e6, 1e6)), min_size=1, max_size=30))
def test_points_stay_inside_the_frame(points):
    drawn = svg.scatter([svg.Point("", x, y) for x, y in points], "x", "y", "t")
    for cx, cy in re.findall(r'<circle cx="([^"]+)" cy="([^"]+)"', drawn.replace("<circle><title>", "<circle ")):
        assert 0 <= float(cx) <= svg.WIDTH
        assert 0 <= float(cy) <= svg.HEIGHT


def test_one_value_and_equal_values_can_be_drawn():
    assert "nan" not in svg.lines([svg.Series("a", [(1, 5.0)])], "x", "y", "t")
    assert "nan" not in svg.bars([svg.Bar("a", 0.0)], "t")
    assert "nan" not in svg.histogram([0.0, 0.0], [5], "x", "t")
    assert "nan" not in svg.density([3.0], [5, 5], 3.0, 3.0, "t")


def test_a_sparkline_shows_density_not_counts():
    """Ten rows between 0 and 1 and ten between 1 and 10: the first bar is nine times as tall."""
    heights = [float(h) for h in re.findall(r'height="([\d.]+)"', svg.density([1.0], [10, 10], 0.0, 10.0, "t"))]
    assert heights[0] / heights[1] == pytest.approx(9, rel=0.05)


def test_labels_do_not_cover_each_other():
    points = [svg.Point(f"scheme_number_{i}", 100.0 + i, 5.0) for i in range(4)]
    drawn = svg.scatter(points, "x", "y", "t", from_zero=True)
    places = {m for m in re.findall(r'<text x="([\d.]+)" y="([\d.]+)" text-anchor="start" class="name">', drawn)}
    assert len(places) == 4
    assert len({y for _, y in places}) >= 2


def test_moments_and_counts() -> None:
    day = 86_400_000_000
    assert fmt.moment(19_000 * day) == "2022-01-08"
    assert fmt.moment(19_000 * day + 3_600_000_000 * 10) == "2022-01-08 10:00"
    assert fmt.moment(-719_162 * day) == "0001-01-01"
    assert fmt.moment(9e18) == "9,000,000,000,000,000,000"
    assert fmt.moment(None) == "–"
    assert (fmt.count(1, "false alarm"), fmt.count(0, "row"), fmt.count(1200, "row")) == ("1 false alarm", "0 rows", "1,200 rows")
