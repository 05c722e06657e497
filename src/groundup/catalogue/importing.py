"""``package.module:Name`` to an object: what is installed first, then what lies beside the recipe, never one for the other.

The recipe's folder stands at the *end* of ``sys.path``, so that a user's file called ``random.py`` cannot replace the
standard library's under everybody's feet; such a clash is reported instead.
"""

from __future__ import annotations

import ast
import functools
import hashlib
import importlib
import importlib.metadata
import inspect
import re
import sys
from collections.abc import Mapping
from pathlib import Path
from typing import Any

from groundup.catalogue.signature import nearest
from groundup.errors import ModelError, RecipeError

_roots: list[str] = []  # the recipe folders that were put on sys.path, the newest last
_seen: dict[str, str] = {}  # user module -> hash of its source when it was imported


def import_name(name: str, root: Path, key: str = "model.class") -> Any:
    """The object that ``package.module:Name`` names; ``key`` is the recipe's key that messages speak of.

    A module beside the recipe that changed since it was imported is imported again (notebooks), and so is one of
    the same name from another recipe's folder.

    Raises:
        RecipeError: malformed, no such module, no such name in it (says what is near), or a name clash.
        ModelError: the module exists and fails while it is imported.
    """
    if not re.fullmatch(r"[^\W\d]\w*(\.[^\W\d]\w*)*:[^\W\d]\w*", name):
        raise RecipeError(f"{key}: expected package.module:Name, got {name!r}; for example sklearn.svm:SVC or my_module:MyNet")
    module_name, _, attribute = name.partition(":")
    module = _import(module_name, root.resolve(), key)
    try:
        return getattr(module, attribute)
    except AttributeError:
        public = [n for n in dir(module) if not n.startswith("_")]
        raise RecipeError(f"{key}: module {module_name} has no {attribute!r}{nearest(attribute, public)}") from None


def _import(module_name: str, root: Path, key: str) -> Any:
    top = module_name.partition(".")[0]
    beside = _file(root, top)
    if beside is not None:
        if top in sys.stdlib_module_names:
            raise RecipeError(f"{key}: {beside} has the name of a module of Python's standard library; rename the file")
        _put_on_path(root)
        _forget_stale(root)
    try:
        module = importlib.import_module(module_name)
    except ModuleNotFoundError as e:
        missing = e.name or module_name
        if module_name == missing or module_name.startswith(missing + "."):
            known = [p.stem for p in root.glob("*.py")]
            raise RecipeError(
                f"{key}: no module {missing!r}, neither installed nor in {root}{nearest(missing, known) if known else ''}"
                f" (an installed library is imported by its module's name: scikit-learn is sklearn)"
            ) from None
        raise ModelError(f"{module_name} needs the module {missing!r}, which is not installed; install what brings it") from e
    except Exception as e:  # a user's file may fail in any way
        raise ModelError(f"importing {module_name} failed: {type(e).__name__}: {e}") from e
    loaded = getattr(module, "__file__", None)
    if beside is not None and loaded is not None and not Path(loaded).resolve().is_relative_to(root):
        raise RecipeError(f"{key}: {beside} is hidden by the installed module {loaded}; rename the file")
    for each in _under(root):
        _seen.setdefault(each, _digest(Path(sys.modules[each].__file__ or "")))
    return module


def _file(root: Path, module_name: str) -> Path | None:
    """Where a module of this name would be in the recipe's folder."""
    base = root.joinpath(*module_name.split("."))
    for path in (base.with_suffix(".py"), base / "__init__.py"):
        if path.is_file():
            return path
    return base if base.is_dir() and any(base.glob("*.py")) else None  # a package without __init__.py


def _put_on_path(root: Path) -> None:
    """Put the folder at the end of the path, in place of the recipe folder that stood there before."""
    if str(root) in sys.path:
        return
    for old in _roots:
        if old in sys.path:
            sys.path.remove(old)
    _roots[:] = [str(root)]
    sys.path.append(str(root))
    importlib.invalidate_caches()


def _forget_stale(root: Path) -> None:
    """Drop what was imported from a recipe folder and has changed, or was imported from another one.

    When one module of the folder changed, all of them go: another may have imported names from it.
    """
    inside = _under(root)
    changed = any(_seen.get(name) not in (None, _digest(Path(sys.modules[name].__file__ or ""))) for name in inside)
    drop = {name for name in _seen if name in sys.modules and name not in inside} | set(inside if changed else ())
    for name in drop:
        sys.modules.pop(name, None)
        _seen.pop(name, None)
    if drop:
        importlib.invalidate_caches()


def _under(root: Path) -> list[str]:
    """Names of the imported modules whose file lies in the recipe's folder and which were found through it."""
    found = []
    for name, module in sys.modules.copy().items():  # in one step: another thread may be importing
        file = getattr(module, "__file__", None)
        if file and name != "__main__" and Path(file) == (_file(root, name) or Path()):
            found.append(name)
    return found


def _digest(path: Path) -> str:
    return hashlib.sha256(path.read_bytes()).hexdigest() if path.is_file() else ""


def source_hash(obj: Any, root: Path) -> str:
    """Hash of the source that defines an object.

    For code beside the recipe: its file and, recursively, what that imports from the recipe's folder.  For installed
    code: the file and the version of the library.
    """
    root = root.resolve()
    module = sys.modules.get(obj.__module__)
    file = getattr(module, "__file__", None)
    digest = hashlib.sha256()
    if file is None:
        digest.update(f"{obj.__module__}.{obj.__qualname__}".encode())
        return digest.hexdigest()
    if Path(file) == _file(root, obj.__module__):
        for path in sorted(_imports(Path(file), root, set())):
            digest.update(f"{path.relative_to(root).as_posix()}\0{_digest(path)}\n".encode())
        return digest.hexdigest()
    top = obj.__module__.partition(".")[0]
    for library in _distributions().get(top, []):
        digest.update(f"{library}=={importlib.metadata.version(library)}\n".encode())
    digest.update(_digest(Path(inspect.getsourcefile(obj) or file)).encode())
    return digest.hexdigest()


@functools.cache
def _distributions() -> Mapping[str, list[str]]:
    """Top-level module -> the installed libraries that bring it; reads every library's file list, so once a process."""
    return importlib.metadata.packages_distributions()


def module_hash(name: str, root: Path) -> str:
    """As :func:`source_hash`, from ``package.module:Name`` alone, without importing anything: cheap enough for every cache key."""
    module_name, root = name.partition(":")[0], root.resolve()
    digest = hashlib.sha256(name.encode())
    beside = _file(root, module_name)
    if beside is not None and beside.is_file():
        for path in sorted(_imports(beside, root, set())):
            digest.update(f"{path.relative_to(root).as_posix()}\0{_digest(path)}\n".encode())
    for library in _distributions().get(module_name.partition(".")[0], []):
        digest.update(f"{library}=={importlib.metadata.version(library)}\n".encode())
    return digest.hexdigest()[:16]


def _imports(path: Path, root: Path, seen: set[Path]) -> set[Path]:
    """The file and every file of the recipe's folder that it imports, directly or not."""
    if path in seen:
        return seen
    seen.add(path)
    package = path.parent.relative_to(root).parts
    for node in ast.walk(ast.parse(path.read_bytes())):
        names: list[str] = []
        if isinstance(node, ast.Import):
            names = [alias.name for alias in node.names]
        elif isinstance(node, ast.ImportFrom):
            above = ".".join(package[: len(package) - node.level + 1]) if node.level else ""
            base = ".".join(part for part in (above, node.module or "") if part)
            names = [base, *(f"{base}.{alias.name}".strip(".") for alias in node.names)]
        for name in names:
            parts = name.split(".") if name else []
            for n in range(1, len(parts) + 1):  # importing a.b runs a/__init__.py as well
                found = _file(root, ".".join(parts[:n]))
                if found is not None and found.is_file():
                    _imports(found, root, seen)
    return seen
