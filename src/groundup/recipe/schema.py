"""The recipe's JSON schema, generated from the sections and the catalogue, so that editors complete and check recipes."""

from __future__ import annotations

from typing import Any

from groundup.data import sources
from groundup.recipe.recipe import Recipe


def json_schema() -> dict[str, Any]:
    """Draft 2020-12.  Models are listed with their parameters and named data sets by name; paths and classes stay allowed."""
    schema = Recipe.model_json_schema(by_alias=True)
    schema = {"$schema": "https://json-schema.org/draft/2020-12/schema", **schema, "title": "groundup recipe"}
    schema["$defs"]["Data"]["properties"]["source"]["examples"] = [s.name for s in sources()]
    return schema
