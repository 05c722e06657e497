"""Numbers in text: with a comma before the fraction, and those that are no plain numbers and are said to be none."""

from __future__ import annotations

from collections.abc import Callable
from pathlib import Path

import numpy as np
import pandas as pd
import pytest

from groundup.bundle.signature import Field
from groundup.data.records import pieces
from groundup.data.settings import Data
from groundup.data.sources import find
from groundup.errors import DataError, RecipeError
from groundup.lifecycle.prepare import Prepared
from groundup.progress import Silent
from groundup.recipe import Recipe

Prepare = Callable[..., Prepared]


def write(path: Path, *, sep: str = ";", decimal: str = ",", n: int = 400) -> pd.DataFrame:
    rng = np.random.default_rng(0)
    frame = pd.DataFrame(
        {
            "größe (m)": rng.normal(size=n).round(3),
            "k": rng.integers(0, 9, n),
            "klein": rng.normal(size=n) * 1e-7,
            "label": np.array(["a", "b"])[rng.integers(0, 2, n)],
        }
    )
    frame.to_csv(path, index=False, sep=sep, decimal=decimal)
    return frame


def kinds(got: Prepared) -> dict[str, str]:
    return {f["name"]: f["kind"] for f in got.inputs}


def column(got: Prepared, name: str) -> pd.Series:
    return pd.concat([pd.Series(got.frame(s)[name].to_numpy(), got.rows(s)) for s in got.sizes]).sort_index()


@pytest.mark.parametrize(("sep", "said"), [(";", None), ("\t", None), (",", ",")])
@pytest.mark.parametrize("broken", [False, True])
def test_a_comma_before_the_fraction(tmp_path: Path, prepared: Prepare, sep: str, said: str | None, broken: bool) -> None:
    frame = write(tmp_path / "t.csv", sep=sep)
    if broken:  # everything is then read as text, a second time
        path = tmp_path / "t.csv"
        path.write_text(path.read_text().replace("\n", f"\nungefähr 3{sep}3{sep}0{sep}a\n", 1))
    got = prepared(root=tmp_path, source="t.csv", target="label", **({"decimal": said} if said else {}))
    assert kinds(got) == {"größe (m)": "number", "k": "integer", "klein": "number"}
    assert any("comma before the fraction" in note for note in got.notes)
    assert got.quarantined == broken
    for name in ("größe (m)", "k", "klein"):
        np.testing.assert_array_equal(column(got, name), frame[name])
    again = prepared(root=tmp_path, source="t.csv", target="label", **({"decimal": said} if said else {}))  # held to the schema
    np.testing.assert_array_equal(column(again, "klein"), frame["klein"])


def test_a_point_is_not_taken_for_a_thousand(tmp_path: Path, prepared: Prepare) -> None:
    """Where both signs stand, neither is reinterpreted; what is no number then is said to be none."""
    frame = write(tmp_path / "t.csv", decimal=".")
    frame["preis"] = [f"{1000 + 7 * i},50" for i in range(400)]
    frame.to_csv(tmp_path / "t.csv", index=False, sep=";")
    got = prepared(root=tmp_path, source="t.csv", target="label")
    assert kinds(got) == {"größe (m)": "number", "k": "integer", "klein": "number"}
    assert any("'preis' is no feature: numbers that are not plain, such as '1000,50'" in n and "data.decimal" in n for n in got.notes)
    (tmp_path / "u.csv").write_text("a;label\n" + "".join(f"1.{i:03d},25;x\n3.000,5;y\n" for i in range(100)))
    with pytest.raises(DataError, match=r"no column is left to predict from; u\.yaml\.draft says why"):
        prepared(root=tmp_path, source="u.csv", target="label", schema="u.yaml", decimal=",")
    assert "not plain, such as '1.000,25'" in (tmp_path / "u.yaml.draft").read_text()


def test_numbers_with_signs_about_them_are_named(tmp_path: Path, prepared: Prepare) -> None:
    frame = write(tmp_path / "t.csv", sep=",", decimal=".")
    frame["charges"] = [f"{1000 + 13.7 * i:,.2f}" for i in range(400)]
    frame["paid"] = [f"€ {i * 1.5:.2f}" for i in range(400)]
    frame["share"] = [f"{i / 4:.2f} %" for i in range(400)]
    frame["name"] = [f"item {i}" for i in range(400)]
    frame.to_csv(tmp_path / "t.csv", index=False)
    told = {n.split("'")[1]: n for n in prepared(root=tmp_path, source="t.csv", target="label").notes if "no feature" in n}
    assert "such as '1,000.00'" in told["charges"]
    assert "data.decimal" not in told["charges"]
    assert "such as '€ 0.00'" in told["paid"]
    assert "such as '0.00 %'" in told["share"]
    assert "a name or free text" in told["name"]


def test_a_scored_table_is_read_in_the_same_way(tmp_path: Path) -> None:
    frame = write(tmp_path / "t.csv")
    (tmp_path / "w").mkdir()
    got = list(pieces(find(Data(source="t.csv"), tmp_path), [Field("klein", "number"), Field("k", "integer")], tmp_path / "w", Silent()))
    np.testing.assert_array_equal(np.concatenate([p.inputs["klein"] for p in got if p.inputs]), frame["klein"])
    assert not any(p.bad for p in got)


def test_another_sign_is_refused() -> None:
    with pytest.raises(RecipeError, match=r"data\.decimal: expected '\.' or ',', got ';'"):
        Recipe.of(name="a", task="tabular-classification", data={"source": "t.csv", "decimal": ";"}, model={"name": "linear"})
