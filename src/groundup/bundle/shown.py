"""What a notebook shows of a small result: names and values in a table, whatever they are."""

from __future__ import annotations

import html
from collections.abc import Mapping
from typing import Any


def facts(caption: str, rows: Mapping[str, Any]) -> str:
    """An HTML table of two columns; names and values come from outside, and none of them can become markup."""
    cells = "".join(f"<tr><th>{html.escape(name)}</th><td>{html.escape(str(value))}</td></tr>" for name, value in rows.items())
    return f"<table><caption>{html.escape(caption)}</caption>{cells}</table>"
