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
    _require(name)
    return _run(name, "prove", seeds)


def check_all(seeds: Sequence[int] = (0,), only: Collection[str] = ()) -> Iterator[Proof]:
    """:func:`check` over the pages' algorithms, the tokenizers and every model of the catalogue, as each is done.

    Args:
        seeds: see :func:`check`.
        only: these names alone.

    Raises:
        ModelError: no such name.
        MissingExtraError: a reference is not installed.
    """
    for name in only:
        _require(name)
    for name in (*_PARTS, *entries()):
        if not only or name in only:
            yield from check(name, seeds)
            yield from _run(name, "prove_transformers", seeds)  # beside its own library, where torch.nn has been the reference


def _require(name: str) -> None:
    known = (*_PARTS, *entries())
    if name not in known:
        raise ModelError(f"groundup has no model {name!r}{nearest(name, known)}")


def _run(name: str, function: str, seeds: Sequence[int]) -> list[Proof]:
    """The proofs of one function of ``proof/<name>.py``; none where it has no such function."""
    try:
        module = importlib.import_module(f"groundup.proof.{name}")
        proofs: list[Proof] = getattr(module, function, lambda _: [])(tuple(seeds))
    except ModuleNotFoundError as e:
        if e.name not in ("transformers", "tokenizers"):
            raise
        raise MissingExtraError(e.name, "proof", f"proving {name}") from e
    return proofs
