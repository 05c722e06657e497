from __future__ import annotations

import json
from dataclasses import replace

import pytest
import yaml
from toy_bundle import PROOF, SIGNATURE

from groundup.bundle import Proof
from groundup.bundle.card import Card, interval, plain, table, with_proofs

CARD = Card(
    name="toy",
    task="tabular-regression",
    signature=SIGNATURE,
    graph="model.onnx",
    model={"name": "linear"},
    rows={"train": 1000, "test": 200},
    data_hash="d" * 64,
    metrics={"r2": {"value": 0.5, "low": 0.4, "high": 0.6}, "mae": {"value": None, "low": None, "high": None}},
    baseline={"r2": {"value": 0.1, "low": 0.0, "high": 0.2}},
    baseline_name="mean",
    served={"r2": 0.5},
    compression={
        "scheme": "fp32",
        "paid": False,
        "reason": "fp32 stays",
        "candidates": [{"scheme": "fp32", "bytes": 10, "latency": {}, "why": "-"}],
    },
    environment={"groundup": "0", "cpu": ["avx2"], "processor": "a CPU"},
    proofs=(PROOF,),
)


@pytest.mark.parametrize(
    ("measured", "tolerance", "at_least", "passed"),
    [
        (1, 1, False, True),
        (1.1, 1, False, False),
        (1, 1, True, True),
        (0.9, 1, True, False),
        (float("nan"), 1, False, False),
        (float("nan"), 0, True, False),
    ],
)
def test_a_proof_passes_or_not(measured, tolerance, at_least, passed):
    proof = Proof(1, "claim", "reference", "quantity", measured, tolerance, at_least)
    assert proof.passed is passed
    assert ("passed" if passed else "FAILED") in str(proof)


def test_a_written_verdict_is_not_believed():
    failed = replace(PROOF, measured=1.0)
    assert Proof.from_dict(failed.to_dict() | {"passed": True}).passed is False
    assert Proof.from_dict(json.loads(json.dumps(PROOF.to_dict()))) == PROOF


def test_a_link_outside_of_the_chain():
    with pytest.raises(ValueError, match="link is one of"):
        replace(PROOF, link=7)


def front_matter(card):
    return yaml.safe_load(card.render().split("---\n", 2)[1])


def test_front_matter_is_yaml_whatever_the_names_are():
    front = front_matter(replace(CARD, name='tricky: "quoted" #not a comment\n--- x', license="mit"))
    assert front["model-index"][0]["name"] == 'tricky: "quoted" #not a comment\n--- x'
    assert front["license"] == "mit"
    assert "license" not in front_matter(CARD)
    assert front["model-index"][0]["results"][0]["metrics"] == [{"type": "r2", "name": "r2", "value": 0.5}]


def test_what_the_sample_does_not_define_is_a_dash():
    assert interval({"value": None, "low": None, "high": None}) == "–"
    assert interval({"value": 0.25, "low": None, "high": None}) == "0.25"
    assert interval({"value": 0.25, "low": 0.125, "high": 0.5}) == "0.25 [0.125, 0.5]"
    assert "nan" not in CARD.render()


def test_text_from_outside_cannot_become_markup():
    hostile = "<script>alert(1)</script> | [x](http://evil) `rm` *b*\n# heading"
    cell = table(["a"], [[hostile]]).splitlines()[2]
    assert "<script>" not in cell
    assert cell.count("|") - cell.count("\\|") == 2
    assert "\\[x\\](http" in cell
    assert "\n" not in plain(hostile)
    card = replace(
        CARD,
        model={"name": hostile},
        notes=[hostile],
        slices=[{"column": hostile, "value": hostile, "n": 1, "metric": "r2", "measured": 1.0}],
    )
    assert "<script>" not in card.render()


def test_failed_proofs_are_shown_as_failed():
    text = replace(CARD, proofs=(PROOF, replace(PROOF, measured=1.0))).render()
    assert "1 of 2 passed" in text
    assert "FAILED" in text


def test_equal_facts_give_equal_text():
    assert CARD.render() == CARD.render()


def test_a_card_that_is_written_already_tells_later_proofs_as_if_it_were_made_anew():
    later = (PROOF, replace(PROOF, link=5, claim="a | b\n## Proofs\n"), replace(PROOF, link=6, measured=1.0))
    described = replace(CARD, description="What it is.\n\n## Proofs\n\nThere is a section of this name in the description, too.")
    for card in (CARD, described):
        assert with_proofs(card.render(), later) == replace(card, proofs=later).render()
        assert with_proofs(with_proofs(card.render(), ()), (PROOF,)) == card.render()
    assert with_proofs("# somebody's own words\n", later) == "# somebody's own words\n"
