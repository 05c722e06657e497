"""Small pieces of HTML for notebooks: what ``Evaluated`` and a run show of themselves."""
from typing import Any
def evaluated_summary(evaluated: dict[str, Any]) -> str:
    raise NotImplementedError
