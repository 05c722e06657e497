"""Every error that groundup raises on purpose, drawn as a tree.

    GroundupError
    ├── RecipeError (ValueError)       the recipe is wrong: file, line, column, nearest known key
    ├── DataError (ValueError)         the data is wrong: file, row, column, what was expected
    │   └── SchemaError                a record does not fit the declared schema
    ├── ModelError (ValueError)        a model cannot be found, built, trained or exported as asked
    ├── BundleError (ValueError)       a bundle is damaged, foreign, newer, or reaches outside its folder
    ├── GateError                      a gate stopped the run; carries the numbers
    ├── ProofError                     a link of the proof chain is not equal
    ├── MissingExtraError (ImportError) an optional library is absent; names the extra that brings it
    ├── BusyError                      another process holds what this one needs (a lock, a port)
    ├── StorageError (OSError)         a folder cannot be written: full, read-only, vanished
    └── Interrupted                    SIGINT or SIGTERM; state is saved, the message says how to resume

A message says what was expected, what came, and what to do.  The command line prints the message alone
and exits with ``exit_code``; from Python every error is caught with ``except GroundupError``.
"""

from __future__ import annotations

from collections.abc import Iterator
from contextlib import contextmanager


class GroundupError(Exception):
    """Root of all errors that groundup raises on purpose."""

    exit_code = 1


class RecipeError(GroundupError, ValueError):
    """The recipe is wrong.  The message starts with ``file:line:column:`` where there is one."""

    exit_code = 2


class DataError(GroundupError, ValueError):
    """The data cannot be used as the recipe asks."""

    exit_code = 3


class SchemaError(DataError):
    """A record does not fit the declared schema."""


class ModelError(GroundupError, ValueError):
    """A model cannot be found, built, trained or exported as asked."""

    exit_code = 4


class BundleError(GroundupError, ValueError):
    """A bundle is damaged, of another format, newer than this version, or reaches outside its folder."""

    exit_code = 5


class GateError(GroundupError):
    """A gate stopped the run; the message holds the numbers that did."""

    exit_code = 6


class ProofError(GroundupError):
    """A link of the proof chain is not equal within its stated tolerance."""

    exit_code = 7


class MissingExtraError(GroundupError, ImportError):
    """An optional library is absent.

    Args:
        library: what could not be imported.
        extra: the groundup extra that brings it.
        purpose: what it was needed for.
    """

    exit_code = 8

    def __init__(self, library: str, extra: str, purpose: str) -> None:
        super().__init__(f"{purpose} needs {library}, which is not installed; run: pip install 'groundup[{extra}]'")
        self.library, self.extra = library, extra


LIBRARIES = {
    "torch": "torch",
    "sklearn": "scikit-learn",
    "scipy": "scipy",
    "pandas": "pandas",
    "pyarrow": "pyarrow",
    "duckdb": "duckdb",
    "pandera": "pandera",
    "PIL": "pillow",
    "safetensors": "safetensors",
    "tokenizers": "tokenizers",
    "onnx": "onnx",
    "onnxscript": "onnxscript",
    "skl2onnx": "skl2onnx",
    "optuna": "optuna",
    "mlflow": "mlflow",
    "matplotlib": "matplotlib",
}
"""What the ``train`` extra brings: import name -> the name to install."""


@contextmanager
def explaining_imports(purpose: str) -> Iterator[None]:
    """Turn the failed import of one of :data:`LIBRARIES` into a :class:`MissingExtraError`; others pass as they are."""
    try:
        yield
    except ModuleNotFoundError as e:
        library = LIBRARIES.get((e.name or "").partition(".")[0])
        if library is None:
            raise
        raise MissingExtraError(library, "train", purpose) from e


class BusyError(GroundupError):
    """Another process holds what this one needs: a lock, a port."""

    exit_code = 9


class StorageError(GroundupError, OSError):
    """A folder cannot be written: it is full, read-only or gone.  Nothing half-written is left."""

    exit_code = 10


class Interrupted(GroundupError):  # noqa: N818 - an event, not a mistake
    """The run was asked to stop; what was done is saved and the message says how to go on."""

    exit_code = 130
