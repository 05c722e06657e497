"""Published sizes: what a constructor is called with, and the number of parameters that the paper prints beside it."""

from __future__ import annotations

from typing import Any, NamedTuple


class Preset(NamedTuple):
    """One published size of an architecture.

    Attributes:
        config: constructor arguments that differ from the defaults.
        published: parameters as the paper states them, rounded as there.
        source: where, and why ours may differ.
    """

    config: dict[str, Any]
    published: float
    source: str
