"""The page: well-formed, self-contained, nothing unescaped, and every number on it comes from the stages."""

from __future__ import annotations

import dataclasses
import html.parser
import itertools
import re
import xml.etree.ElementTree as ET

import numpy as np
import pytest
from invented_run import HOSTILE, evaluated, stages

from groundup.bundle.proof import Proof
from groundup.lifecycle.report import report
from groundup.lifecycle.stage import Context
from groundup.reporting.facts import STAGES, Facts, gather, proofs_of
from groundup.reporting.page import page

VOID = {"img", "br", "hr", "meta", "link", "input"}


class Checker(html.parser.HTMLParser):
    """Every element closed in order; collects what it saw."""

    def __init__(self):
        super().__init__()
        self.open, self.tags, self.attributes, self.text, self.identities = [], [], [], [], []

    def handle_starttag(self, tag, attrs):
        self.tags.append(tag)
        self.attributes += attrs
        self.identities += [v for k, v in attrs if k == "id"]
        if tag not in VOID:
            self.open.append(tag)

    def handle_endtag(self, tag):
        assert self.open.pop() == tag

    def handle_data(self, data):
        self.text.append(data)


def checked(text: str) -> Checker:
    checker = Checker()
    checker.feed(text)
    assert checker.open == []
    return checker


def test_the_whole_page_is_well_formed_and_loads_nothing(facts):
    text = page(facts)
    seen = checked(text)
    assert text.startswith('<!doctype html>\n<html lang="en">')
    assert "script" not in seen.tags
    assert not [k for k, _ in seen.attributes if k.startswith("on")]
    for name, value in seen.attributes:
        if name in {"src", "href", "action", "poster", "data"}:
            assert value.startswith(("#", "data:image/png;base64,")), (name, value)
    assert not re.search(r"url\(|@import|https?://(?!www\.w3\.org)", text)
    assert "default-src 'none'" in dict(seen.attributes).get("content", "") or "default-src &#x27;none&#x27;" in text
    links = {v[1:] for k, v in seen.attributes if k == "href"}
    assert links <= set(seen.identities)
    expected = {"evaluation", "compression", "rehearsal", "proofs", "data", "tuning", "training", "registry", "environment"}
    assert set(seen.identities) == expected


def test_every_drawing_is_well_formed_xml_without_undefined_numbers(facts):
    drawings = re.findall(r"<svg.*?</svg>", page(facts), re.S)
    assert len(drawings) >= 10
    for drawing in drawings:
        ET.fromstring(drawing)
        assert not re.search(r"nan|inf|None", re.sub(r"<title>.*?</title>|aria-label=\"[^\"]*\"|<text.*?</text>", "", drawing))


def test_nothing_hostile_survives(facts):
    """Names, classes, notes, reasons, claims, records: each is the same attack, shown as text in many places."""
    text = page(facts)
    assert "<script" not in text
    assert "\u202e" not in text
    shown = "".join(checked(text).text)
    assert shown.count("<script>alert(1)</script>&\"'") > 20


def test_the_numbers_are_the_stages(facts):
    words = re.sub(r"[ \n]+", " ", "".join(checked(page(facts)).text))
    accuracy = facts["evaluated"]["metrics"]["accuracy"]
    assert f"{100 * accuracy['value']:.1f}\u202f%" in words
    assert "Compression paid: 2.50\u202f× smaller, 2.00\u202f× as fast." in words
    assert "1 of 2 proofs passed." in words
    assert "The drift alarm rose on changed traffic and stayed quiet in 199 of 200 clean windows." in words
    assert "train 700 (70\u202f%), validation 100 (10\u202f%), test 200 (20\u202f%)" in words
    assert "alarm after 100 rows; it ended when requests were clean again" in words


@pytest.mark.parametrize("missing", STAGES)
def test_any_stage_may_be_missing(facts, missing):
    fewer = {name: fields for name, fields in facts.stages.items() if name != missing}
    checked(page(dataclasses.replace(facts, stages=fewer)))


@pytest.mark.parametrize("there", [*itertools.combinations(STAGES, 1), ()])
def test_any_stage_may_be_alone(facts, there):
    checked(page(Facts({name: facts.stages[name] for name in there if name in facts.stages})))


def test_what_did_not_pay_and_what_failed_is_said(facts):
    changed = stages()
    changed["compressed"]["verdict"] = {"chosen": "fp32", "paid": False, "reason": "slower"}
    changed["evaluated"]["gates"][0]["passed"] = False
    changed["rehearsed"]["drift"]["offline"]["detected"] = {"inverted": 0.1}
    words = "".join(checked(page(dataclasses.replace(facts, stages=changed))).text)
    assert "did not pay, so the uncompressed graph is served" in words
    assert "1 of 1 gates failed." in words
    assert "The drift alarm did not rise on changed traffic." in words


def test_undefined_numbers_are_dashes(facts):
    changed = stages()
    for estimate in changed["evaluated"]["metrics"].values():
        estimate.update(value=None, low=None, high=None)
    changed["evaluated"]["baseline"] = {}
    changed["trained"]["history"] = [{"epoch": i, "train_loss": None, "lr": 0.1} for i in range(3)]
    words = "".join(checked(page(dataclasses.replace(facts, stages=changed))).text)
    assert "None" not in words
    assert "nan" not in words


def test_regression_has_its_own_figures():
    words = "".join(checked(page(Facts({"evaluated": evaluated("tabular-regression").model_dump(mode="json")}))).text)
    assert "R² is" in words
    assert "Target over prediction" in words
    assert "Confusion" not in words
    assert "off by" in words


def test_dates_are_shown_as_dates(facts):
    day = 86_400_000_000
    column = {
        "kind": "number",
        "count": 9,
        "missing": 0,
        "distinct": 9,
        "min": 19_000.0 * day,
        "max": 19_100.5 * day,
        "mean": 19_050.0 * day,
    }
    changed = dict(facts.stages)
    changed["prepared"] = changed["prepared"] | {"inputs": [{"name": "seen", "kind": "datetime", "nullable": False}]}
    worst = {"row": 3, "truth": "a", "answer": "b", "confidence": 0.9, "loss": 2.0}
    record = {"seen": "2022-01-08T00:00:00", "at": "2022-01-09T10:30:00", "code": "2022-1"}
    changed["evaluated"] = changed["evaluated"] | {"worst": [worst | {"record": record}]}
    text = page(dataclasses.replace(facts, stages=changed, profile={"seen": column, "seen.missing": column}))
    assert "<time>2022-01-08</time> … <time>2022-04-18 12:00</time>" in text
    assert "seen.missing" not in text
    assert "<td><time>2022-01-08</time></td><td><time>2022-01-09 10:30:00</time></td><td>2022-1</td>" in text


def test_many_classes_and_long_names_fit():
    names = tuple(f"class number {i} with a long name" for i in range(40))
    text = page(Facts({"evaluated": evaluated(classes=names, n=2000).model_dump(mode="json")}))
    checked(text)
    assert "Precision and recall by class (40)" in text


def test_a_proof_made_twice_counts_once_and_packages_count_is_no_list():
    old, new = Proof(5, "same", "r", "q", 2.0, 1.0), Proof(5, "same", "r", "q", 0.5, 1.0)
    found = proofs_of({"packaged": {"proofs": 12}, "compressed": {"proofs": [old.to_dict()]}, "rehearsed": {"proofs": [new.to_dict()]}})
    assert found == (new,)


def test_the_stage_writes_the_file_with_its_pictures(tmp_path):
    from groundup.evaluation.png import encode

    e = evaluated()
    where = tmp_path / "evaluate"
    (where / "worst").mkdir(parents=True)
    (where / "worst" / "0.png").write_bytes(encode(np.zeros((4, 4), np.uint8)))
    e.worst[0] = {k: v for k, v in e.worst[0].items() if k != "record"} | {"image": "worst/0.png"}
    e.save(where)
    out = tmp_path / "report"
    out.mkdir()
    made = report(evaluated=e, out=out, context=Context(tmp_path, tmp_path)).save(out)
    text = (out / made.report).read_text(encoding="utf-8")
    assert len(text.encode()) == made.size
    assert "data:image/png;base64,iVBOR" in text
    checked(text)
    assert gather({"evaluated": e, "tuned": None}).stages.keys() == {"evaluated"}


def test_a_picture_outside_is_not_read(tmp_path):
    assert Facts({}, paths={"evaluated": tmp_path}).picture("evaluated", "worst/9.png") is None


def test_fragments_are_scoped_and_well_formed(facts):
    from groundup.reporting.fragments import evaluated_summary, run_summary

    text = evaluated_summary(facts["evaluated"])
    checked(text)
    assert text.startswith('<div class="groundup"><style>@scope (.groundup) {')
    assert ":root" not in text
    summary = run_summary({"evaluate": evaluated(), "step:mine": object()}, list(facts.proofs))
    checked(summary)
    assert "1/1" in summary
    assert HOSTILE not in summary
    assert evaluated()._repr_html_() == text
