from __future__ import annotations

from types import SimpleNamespace

import cores
import pytest


@pytest.fixture(scope="session")
def made() -> SimpleNamespace:
    """Fitted cores and the digits that they were and were not fitted on."""
    images, X, y = cores.digits()
    train, test = slice(0, 1200), slice(1200, None)
    return SimpleNamespace(
        images=images[test],
        X=X[test],
        y=y[test],
        features=X[train],
        mlp=cores.mlp_core(X[train], y[train]),
        residual=cores.residual_core(X[train], y[train]),
    )
