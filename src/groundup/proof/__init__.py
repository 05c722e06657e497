"""Link 1 of the chain: each model of the catalogue beside the reference implementation of the same equations.

``proof/<name>.py`` proves the model ``<name>`` and is found by being there; it has one function, ``prove(seeds)``.
``proof/invariance.py`` measures what must hold of any network (link 2), a user's own included.
"""

from __future__ import annotations

import importlib
from collections.abc import Sequence
from typing import TYPE_CHECKING

from groundup.catalogue import entries
from groundup.catalogue.signature import nearest
from groundup.errors import ModelError

if TYPE_CHECKING:
    from groundup.bundle import Proof

__all__ = ["check"]


def check(name: str, seeds: Sequence[int] = (0,)) -> list[Proof]:
    """Compare a model of the catalogue with its reference implementation, now and here.

    Args:
        name: as in `groundup models`.
        seeds: each draws other sizes' weights and data; the worst difference over all of them is what a proof measures.

    Returns:
        Proofs of link 1; look at ``passed``, nothing is raised for a failed one.

    Raises:
        ModelError: no such model.
    """
    if name not in entries():
        raise ModelError(f"groundup has no model {name!r}{nearest(name, entries())}")
    proofs: list[Proof] = importlib.import_module(f"groundup.proof.{name}").prove(tuple(seeds))
    return proofs
