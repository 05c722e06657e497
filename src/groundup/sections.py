"""The base of every recipe section: typed, immutable, unknown keys refused, a default written in one place.

A section is owned by the component that reads it; ``groundup.recipe`` composes them.  Keys that are goal words are
spelled with a hyphen in a recipe (``max-degradation``) and with an underscore in Python; both are read.
"""

from __future__ import annotations

from pydantic import BaseModel, ConfigDict


class Section(BaseModel):
    """One section of a recipe.  The docstring of a subclass and the ``description`` of its fields become the JSON schema's."""

    model_config = ConfigDict(extra="forbid", frozen=True, validate_by_name=True, validate_by_alias=True, use_attribute_docstrings=True)
