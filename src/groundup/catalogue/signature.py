"""A constructor's signature as configuration: names, types, defaults and help, and the check of given values against it.

Our own models are read with ``ast``, so that listing them imports neither PyTorch nor scikit-learn; classes from
elsewhere are imported anyway and read with ``inspect``.
"""

from __future__ import annotations

import ast
import contextlib
import difflib
import inspect
import json
import typing
from collections.abc import Callable, Iterable, Mapping
from dataclasses import dataclass
from typing import Annotated, Any, Literal

import pydantic
from pydantic import ConfigDict, Field, TypeAdapter, ValidationError
from pydantic.errors import PydanticUserError

FILLED = ("input_shape", "n_features", "n_outputs")
"""Constructor parameters that are taken from the data wherever a constructor asks for them."""

_ANNOTATIONS: dict[str, Any] = {
    "Annotated": Annotated,
    "Any": Any,
    "Field": Field,
    "Literal": Literal,
    **{name: getattr(pydantic, name) for name in ("PositiveInt", "NonNegativeInt", "PositiveFloat", "NonNegativeFloat")},
}


class _Required:
    """Stands where a parameter has no default."""

    def __repr__(self) -> str:
        return "required"


REQUIRED = _Required()


@dataclass(frozen=True)
class Parameter:
    """One constructor parameter.

    Attributes:
        default: its default, or ``REQUIRED``.
        annotation: as written, "" where there is none.
        type: what a value is checked against; ``Any`` where the annotation says nothing that can be checked.
        doc: its sentence in the class's docstring.
    """

    name: str
    default: Any = REQUIRED
    annotation: str = ""
    type: Any = Any
    doc: str = ""

    @property
    def filled(self) -> bool:
        """Whether it comes from the data."""
        return self.name in FILLED

    @property
    def adapter(self) -> TypeAdapter[Any] | None:
        """What checks a value, or None where the annotation means nothing to pydantic (the constructor must refuse then)."""
        try:
            return TypeAdapter(self.type, config=None if _has_config(self.type) else ConfigDict(arbitrary_types_allowed=True))
        except (PydanticUserError, TypeError, NameError):
            return None

    def check(self, value: Any) -> Any:
        """``value`` as the annotation wants it: a list may be a tuple and 1 a float, but "64" and true are no integers.

        Raises:
            pydantic.ValidationError: the value does not fit.
        """
        adapter = self.adapter
        if adapter is None:
            return value
        try:
            text = json.dumps(value)
        except (TypeError, ValueError):
            return adapter.validate_python(value, strict=True)
        return adapter.validate_json(text, strict=True)


def _has_config(annotation: Any) -> bool:
    return isinstance(annotation, type) and hasattr(annotation, "__pydantic_fields__")


def problems(given: Mapping[str, Any], known: Iterable[Parameter], name: str, *, more: bool = False) -> dict[str, str]:
    """What is wrong with each given parameter, by key; empty where all is well.

    Args:
        name: what the model is called in the message.
        more: the constructor takes any further keyword (``**kwargs``).
    """
    by_name = {p.name: p for p in known}
    found = {}
    for key, value in given.items():
        if key in by_name:
            try:
                by_name[key].check(value)
            except ValidationError as e:
                first = e.errors()[0]
                why = first["msg"].replace("Input should be", "expected")
                place = "".join(f"[{part}]" for part in first["loc"] if isinstance(part, int))
                found[key] = f"{name}: {key}{place}: {why[0].lower()}{why[1:]}, got {first['input']!r} ({key}: {by_name[key].annotation})"
        elif not more:
            names = [p.name for p in by_name.values() if not p.filled]
            found[key] = f"{name} has no parameter {key!r}{nearest(key, names)}"
    return found


def nearest(word: str, known: Iterable[str]) -> str:
    """``; did you mean 'width'?``, or all that is known where nothing is near."""
    known = sorted(known)
    if close := difflib.get_close_matches(word, known, n=3, cutoff=0.6):
        best = next((k for k in close if sorted(k.lower()) == sorted(word.lower())), close[0])  # swapped letters: SCV is SVC, not SVR
        return f"; did you mean {best!r}?"
    shown = ", ".join(known[:20]) + (", ..." if len(known) > 20 else "")
    return f"; known: {shown}" if known else "; it takes none"


def arguments(docstring: str) -> dict[str, str]:
    """The ``Args:`` (or NumPy-style ``Parameters``) section of a docstring: name -> its text, first paragraph.

    >>> arguments('''Fit.
    ...
    ... Args:
    ...     width: units of
    ...         a layer.
    ... ''')
    {'width': 'units of a layer.'}
    """
    docs: dict[str, str] = {}
    lines = inspect.cleandoc(docstring).splitlines()
    heads = [i for i, line in enumerate(lines) if line == "Args:" or (line == "Parameters" and lines[i + 1 : i + 2] == ["-" * 10])]
    if not heads:
        return docs
    google = lines[heads[0]] == "Args:"
    key_indent = 4 if google else 0
    name, paragraph_over = "", False
    body = lines[heads[0] + (1 if google else 2) :]
    for line in body:
        indent = len(line) - len(line.lstrip())
        if not line.strip():
            paragraph_over = bool(docs.get(name))
        elif indent < key_indent or line in ("Attributes", "Returns", "See Also", "Notes", "Examples"):
            break
        elif indent == key_indent:
            name, _, text = line.strip().partition(": " if google else " : ")
            docs[name], paragraph_over = (text if google else ""), False
        elif not paragraph_over:
            docs[name] = f"{docs[name]} {line.strip()}".strip()
    return docs


def from_source(cls: ast.ClassDef) -> tuple[Parameter, ...]:
    """The constructor parameters of a class of ours, from its source."""
    init = next(n for n in cls.body if isinstance(n, ast.FunctionDef) and n.name == "__init__")
    docs = arguments(ast.get_docstring(cls) or "")
    positional, keywords = init.args.args[1:], init.args.kwonlyargs
    defaults = [None] * (len(positional) - len(init.args.defaults)) + init.args.defaults + init.args.kw_defaults
    found = []
    for argument, default in zip(positional + keywords, defaults, strict=True):
        annotation = ast.unparse(argument.annotation) if argument.annotation else ""
        found.append(
            Parameter(
                name=argument.arg,
                default=REQUIRED if default is None else ast.literal_eval(default),
                annotation=annotation,
                type=eval(annotation, dict(_ANNOTATIONS)) if annotation else Any,  # our own file, not a user's
                doc=docs.get(argument.arg, ""),
            )
        )
    return tuple(found)


def from_callable(cls: Callable[..., Any]) -> tuple[tuple[Parameter, ...], bool]:
    """The parameters of a class's constructor or of a function, and whether it takes any further keyword."""
    signature = inspect.signature(cls)
    hints: dict[str, Any] = {}
    with contextlib.suppress(NameError, TypeError, AttributeError):  # an annotation that cannot be evaluated checks nothing
        hints = typing.get_type_hints(inspect.getattr_static(cls, "__init__") if isinstance(cls, type) else cls, include_extras=True)
    docs = arguments(inspect.getdoc(cls) or "")
    found, more = [], False
    for p in signature.parameters.values():
        if p.kind is p.VAR_KEYWORD:
            more = True
        elif p.kind is not p.VAR_POSITIONAL:
            written = p.annotation if isinstance(p.annotation, str) else getattr(p.annotation, "__name__", str(p.annotation))
            found.append(
                Parameter(
                    name=p.name,
                    default=REQUIRED if p.default is p.empty else p.default,
                    annotation="" if p.annotation is p.empty else written,
                    type=hints.get(p.name, Any),
                    doc=docs.get(p.name, ""),
                )
            )
    return tuple(found), more
