"""Link 1 of the chain: each model of the catalogue beside the reference implementation of the same equations.

``proof/<name>.py`` proves the model ``<name>`` and is found by being there; it has one function, ``prove(seeds)``.
``proof/algorithms.py`` proves the pages' pseudocode equal to what runs, ``proof/tokenizers.py`` the tokenizers.
``proof/invariance.py`` measures what must hold of any network (link 2), a user's own included.
"""

from __future__ import annotations

import importlib
from collections.abc import Collection, Iterator, Sequence
from typing import TYPE_CHECKING

from groundup.catalogue import entries
from groundup.catalogue.signature import nearest
from groundup.errors import MissingExtraError, ModelError

if TYPE_CHECKING:
    from groundup.bundle import Proof

__all__ = ["check", "check_all"]

_PARTS = ("algorithms", "tokenizers")
"""Proofs of parts that are no model by themselves."""


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
    if name not in (*entries(), *_PARTS):
        raise ModelError(f"groundup has no model {name!r}{nearest(name, [*entries(), *_PARTS])}")
    try:
        module = importlib.import_module(f"groundup.proof.{name}")
        proofs: list[Proof] = module.prove(tuple(seeds))
    except ModuleNotFoundError as e:
        if e.name not in ("transformers", "tokenizers"):
            raise
        raise MissingExtraError(e.name, "proof", f"proving {name}") from e
    return proofs


def check_all(seeds: Sequence[int] = (0,), only: Collection[str] = ()) -> Iterator[Proof]:
    """:func:`check` over the pages' algorithms, the tokenizers and every model of the catalogue, as each is done.

    Args:
        seeds: see :func:`check`.
        only: these names alone.

    Raises:
        ModelError: no such name.
        MissingExtraError: a reference is not installed.
    """
    known = (*_PARTS, *entries())
    for name in only:
        if name not in known:
            raise ModelError(f"groundup has no model {name!r}{nearest(name, known)}")
    for name in known:
        if not only or name in only:
            yield from check(name, seeds)
