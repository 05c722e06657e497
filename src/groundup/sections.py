"""The base of every recipe section: typed, immutable, unknown keys refused, a default written in one place.

A section is owned by the component that reads it; ``groundup.recipe`` composes them.  Keys are spelled with underscores
(``batch_size``), goal words with hyphens as in Olive (``max-degradation``); the other spelling is read too.
"""

from __future__ import annotations

from typing import Any

from pydantic import BaseModel, ConfigDict, model_validator


class Section(BaseModel):
    """One section of a recipe.  The docstring of a subclass and those of its fields become the JSON schema's descriptions."""

    model_config = ConfigDict(extra="forbid", frozen=True, validate_by_name=True, validate_by_alias=True, use_attribute_docstrings=True)

    @model_validator(mode="before")
    @classmethod
    def _either_spelling(cls, data: Any) -> Any:
        if not isinstance(data, dict) or cls.model_config.get("extra") == "allow":
            return data
        known = cls.model_fields.keys() | {field.alias for field in cls.model_fields.values() if field.alias}
        return {spelling(key, known, data): value for key, value in data.items()}


def spelling(key: Any, known: Any, taken: Any) -> Any:
    """``key`` as ``known`` spells it, if hyphens and underscores are all that differs and that spelling is not ``taken`` too."""
    if isinstance(key, str) and key not in known:
        for other in (key.replace("-", "_"), key.replace("_", "-")):
            if other in known and other not in taken:
                return other
    return key
