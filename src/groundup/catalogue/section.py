"""The recipe's ``model`` section: a model of the catalogue by name, or a class by import path; further keys are its parameters."""

from __future__ import annotations

from typing import Any

from pydantic import ConfigDict, Field, GetJsonSchemaHandler, ValidationError, model_validator
from pydantic.json_schema import JsonSchemaValue
from pydantic_core import CoreSchema, InitErrorDetails, PydanticCustomError

from groundup.catalogue.entries import Entry, entries
from groundup.catalogue.signature import REQUIRED, nearest, problems
from groundup.sections import Section


class Model(Section):
    """The model: one of groundup's by name, or any scikit-learn estimator or PyTorch module by class; further keys are its parameters."""

    model_config = ConfigDict(extra="allow")

    name: str | None = None
    """A model of the catalogue; `groundup models` lists them."""
    class_: str | None = Field(None, alias="class")
    """`package.module:Name`; modules beside the recipe can be imported too."""

    @property
    def params(self) -> dict[str, Any]:
        """The constructor parameters that the recipe gives."""
        return dict(self.model_extra or {})

    @model_validator(mode="after")
    def _known(self) -> Model:
        """Check what can be checked without importing the model, and report it at the key where it stands."""
        if (self.name is None) == (self.class_ is None):
            raise ValueError("expected either 'name' (one of groundup's models) or 'class' (package.module:Name) of a model")
        if self.name is None:
            return self
        if self.name not in entries():
            raise _refusal({"name": f"groundup has no model {self.name!r}{nearest(self.name, entries())}"}, {"name": self.name})
        if entries()[self.name].kind == "sequence":
            text = f"{self.name} reads tokens, and no task of a recipe does; use it from Python, groundup.models.{self.name}"
            raise _refusal({"name": text}, {"name": self.name})
        if found := problems(self.params, entries()[self.name].parameters, self.name):
            raise _refusal(found, self.params)
        return self

    @classmethod
    def __get_pydantic_json_schema__(cls, core_schema: CoreSchema, handler: GetJsonSchemaHandler) -> JsonSchemaValue:
        """One alternative a model of the catalogue, so that an editor completes its parameters, and one for classes."""
        base = handler.resolve_ref_schema(handler(core_schema))
        base.pop("properties", None)
        base.pop("additionalProperties", None)
        base["anyOf"] = [*(_schema(entry) for entry in entries().values() if entry.kind != "sequence"), _CLASS_SCHEMA]
        return base


def _refusal(texts: dict[str, str], values: dict[str, Any]) -> ValidationError:
    """An error at each key; pydantic places them in the recipe when a validator raises it."""
    details = [
        InitErrorDetails(type=PydanticCustomError("value_error", "{error}", {"error": text}), loc=(key,), input=values[key])
        for key, text in texts.items()
    ]
    return ValidationError.from_exception_data("Model", details)


_CLASS_SCHEMA: JsonSchemaValue = {
    "title": "class",
    "type": "object",
    "properties": {"class": {"type": "string", "pattern": r"^[\w.]+:\w+$", "description": "package.module:Name"}},
    "required": ["class"],
}


def _schema(entry: Entry) -> JsonSchemaValue:
    properties: dict[str, Any] = {"name": {"const": entry.name, "description": entry.summary}}
    for p in entry.parameters:
        if not p.filled and (adapter := p.adapter):
            properties[p.name] = adapter.json_schema() | {"description": p.doc} | ({} if p.default is REQUIRED else {"default": p.default})
    return {"title": entry.name, "type": "object", "properties": properties, "required": ["name"], "additionalProperties": False}
