"""Machine learning from the ground up: one proof chain from the equation to the endpoint."""

from __future__ import annotations

from typing import TYPE_CHECKING, Any

__version__ = "0.1.0"

if TYPE_CHECKING:
    from groundup.bundle import Bundle, Proof
    from groundup.errors import GroundupError
    from groundup.lifecycle.record import Run
    from groundup.lifecycle.run import plan, run
    from groundup.recipe import Recipe

__all__ = ["Bundle", "GroundupError", "Proof", "Recipe", "Run", "__version__", "plan", "run"]

_HOMES = {
    "Bundle": "groundup.bundle",
    "Proof": "groundup.bundle",
    "GroundupError": "groundup.errors",
    "Recipe": "groundup.recipe",
    "Run": "groundup.lifecycle.record",
    "plan": "groundup.lifecycle.run",
    "run": "groundup.lifecycle.run",
}


def __getattr__(name: str) -> Any:
    """Import a public name where it is first used, so that ``import groundup`` stays light (PEP 562)."""
    if name in _HOMES:
        import importlib

        return getattr(importlib.import_module(_HOMES[name]), name)
    raise AttributeError(f"module 'groundup' has no attribute {name!r}")


def __dir__() -> list[str]:
    return __all__
