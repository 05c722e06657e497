"""The bundle: a folder of plain files that leaves training and enters serving, checked before anything is loaded.

    bundle.json          this manifest: name, version, task, signature, hashes of every other file
    model.onnx           raw record in, answer out
    proofs.json          what was measured, with tolerances
    golden.npz           inputs and answers for the self-test
    profile.json         what the training inputs looked like
    README.md            the model card

Nothing in a bundle is pickled.  :meth:`Bundle.open` refuses a folder whose files differ from the manifest by one
byte, whose paths leave the folder, that holds links or files nobody listed, or whose format is newer than this code.
:meth:`Bundle.read` returns the very bytes that were hashed, so a file swapped after the check is noticed.
"""

from __future__ import annotations

import hashlib
import json
import os
import stat
import zipfile
from collections.abc import Mapping
from dataclasses import dataclass, field
from datetime import UTC, datetime
from pathlib import Path, PurePosixPath
from typing import Any

from groundup.bundle.files import sha256, whole_directory, write_json
from groundup.bundle.proof import Proof
from groundup.bundle.signature import Signature
from groundup.errors import BundleError

FORMAT = 1
MANIFEST = "bundle.json"
_MAX_MANIFEST = 16 << 20


@dataclass(frozen=True)
class Bundle:
    """An opened, verified bundle.

    Attributes:
        version: a short content hash; two bundles with the same version hold the same bytes.
        task: "image-classification", "tabular-classification" or "tabular-regression".
        graph: the file that is served, relative to ``path``.
        files: relative POSIX path -> {"sha256": ..., "bytes": ...}, every file but the manifest.
        metrics: headline metrics of the test split, name -> value.
        compression: scheme, verdict and the measurements behind it.
        environment: versions of what made the bundle; "cpu": flags of the CPU it was made on.
        serve, monitor: settings from the recipe, defaults for the server.
    """

    path: Path
    name: str
    version: str
    task: str
    signature: Signature
    graph: str
    files: Mapping[str, Mapping[str, Any]]
    created: str = ""
    data_hash: str = ""
    code_hash: str = ""
    metrics: Mapping[str, float] = field(default_factory=dict)
    compression: Mapping[str, Any] = field(default_factory=dict)
    environment: Mapping[str, Any] = field(default_factory=dict)
    serve: Mapping[str, Any] = field(default_factory=dict)
    monitor: Mapping[str, Any] = field(default_factory=dict)

    @classmethod
    def open(cls, path: str | os.PathLike[str]) -> Bundle:
        """Open and verify the bundle in the folder ``path``.

        Raises:
            BundleError: not a bundle, damaged, foreign files, unsafe paths, or a newer format.
        """
        folder = Path(path)
        manifest = _read_manifest(folder)
        bundle = cls._from_manifest(folder, manifest)
        present = _walk(folder)
        listed = set(bundle.files)
        if missing := sorted(listed - present):
            raise BundleError(f"{folder}: the bundle lacks {', '.join(missing)}; copy it again from where it was made")
        if foreign := sorted(present - listed - {MANIFEST}):
            raise BundleError(f"{folder}: {', '.join(foreign)} is not listed in {MANIFEST}; a bundle holds nothing unlisted, remove it")
        for name in bundle.files:
            bundle.read(name)
        if (version := content_version(bundle.files)) != bundle.version:
            raise BundleError(f"{folder}: {MANIFEST} says version {bundle.version}, its files make {version}; it was edited by hand")
        return bundle

    @classmethod
    def _from_manifest(cls, folder: Path, manifest: dict[str, Any]) -> Bundle:
        made_for = manifest.get("format")
        if not isinstance(made_for, int):
            raise BundleError(f"{folder / MANIFEST}: expected a whole number under 'format', got {made_for!r}; this is no groundup bundle")
        if made_for > FORMAT:
            raise BundleError(f"{folder}: bundle format {made_for} is newer than this groundup reads ({FORMAT}); upgrade groundup")
        try:
            files = {_safe(folder, name): dict(entry) for name, entry in manifest["files"].items()}
            bundle = cls(
                path=folder,
                files=files,
                signature=Signature.from_dict(manifest["signature"]),
                **{k: manifest[k] for k in ("name", "version", "task", "graph")},
                **{
                    k: manifest[k]
                    for k in ("created", "data_hash", "code_hash", "metrics", "compression", "environment", "serve", "monitor")
                    if k in manifest
                },
            )
        except (KeyError, TypeError, AttributeError) as e:
            raise BundleError(f"{folder / MANIFEST}: damaged manifest: {type(e).__name__} {e}; copy the bundle again") from e
        if bundle.graph not in files:
            raise BundleError(f"{folder / MANIFEST}: the graph {bundle.graph!r} is not among its files")
        return bundle

    def read(self, name: str) -> bytes:
        """The bytes of one listed file, verified as they are read.

        Raises:
            BundleError: not listed, a link, or not the bytes that the manifest promises.
        """
        entry = self.files.get(name)
        if entry is None:
            raise BundleError(f"{self.path}: no file {name!r} in this bundle; it has {', '.join(sorted(self.files))}")
        try:
            fd = os.open(self.path / name, os.O_RDONLY | os.O_NOFOLLOW)
        except OSError as e:
            raise BundleError(f"{self.path / name}: cannot be opened ({e.strerror}); links are refused in bundles") from e
        with os.fdopen(fd, "rb") as f:
            info = os.fstat(f.fileno())
            if not stat.S_ISREG(info.st_mode) or info.st_size != entry["bytes"]:
                raise BundleError(
                    f"{self.path / name}: expected {entry['bytes']} bytes, got {info.st_size}; the bundle is damaged, copy it again"
                )
            data = f.read()
        found = hashlib.sha256(data).hexdigest()
        if found != entry["sha256"]:
            raise BundleError(
                f"{self.path / name}: SHA-256 is {found[:16]}…, expected {entry['sha256'][:16]}…; the bundle is damaged, copy it again"
            )
        return data

    def proofs(self) -> list[Proof]:
        """The proofs that were made while the bundle was."""
        if "proofs.json" not in self.files:
            return []
        return [Proof.from_dict(p) for p in json.loads(self.read("proofs.json"))]

    @property
    def size(self) -> int:
        """Bytes of all listed files."""
        return sum(int(entry["bytes"]) for entry in self.files.values())


def content_version(files: Mapping[str, Mapping[str, Any]]) -> str:
    """First 12 hex digits of the SHA-256 over every file's name and hash, in order of the names."""
    digest = hashlib.sha256()
    for name in sorted(files):
        digest.update(f"{name}\0{files[name]['sha256']}\n".encode())
    return digest.hexdigest()[:12]


def write_bundle(
    path: Path,
    sources: Mapping[str, Path | bytes],
    *,
    name: str,
    task: str,
    signature: Signature,
    graph: str = "model.onnx",
    **fields: Any,
) -> Bundle:
    """Write a bundle folder whole or not at all, and open it.

    Args:
        sources: relative POSIX path in the bundle -> the file to copy, or its bytes.
        fields: the further attributes of :class:`Bundle` (metrics, compression, environment, ...).
    """
    with whole_directory(path) as folder:
        files: dict[str, dict[str, Any]] = {}
        for relative, source in sources.items():
            target = folder / _safe(path, relative)
            target.parent.mkdir(parents=True, exist_ok=True)
            target.write_bytes(source if isinstance(source, bytes) else source.read_bytes())
            files[relative] = {"sha256": sha256(target), "bytes": target.stat().st_size}
        manifest = {
            "format": FORMAT,
            "name": name,
            "version": content_version(files),
            "task": task,
            "created": fields.pop("created", None) or datetime.now(UTC).isoformat(timespec="seconds"),
            "signature": signature.to_dict(),
            "graph": graph,
            "files": files,
            **fields,
        }
        write_json(folder / MANIFEST, manifest)
    return Bundle.open(path)


def _read_manifest(folder: Path) -> dict[str, Any]:
    if folder.is_file():
        kind = "a zip archive" if zipfile.is_zipfile(folder) else "a file"
        raise BundleError(f"{folder} is {kind}; a bundle is a folder with {MANIFEST} in it, and archives or pickles are never loaded")
    if not folder.is_dir():
        raise BundleError(f"no bundle at {folder}: expected a folder with {MANIFEST} in it; `groundup run` writes one")
    path = folder / MANIFEST
    if path.is_symlink() or not path.is_file():
        raise BundleError(f"{folder} is no bundle: it has no {MANIFEST}; give the folder that `groundup run` names in its last lines")
    if path.stat().st_size > _MAX_MANIFEST:
        raise BundleError(f"{path}: {path.stat().st_size} bytes is too large for a manifest (at most {_MAX_MANIFEST})")
    try:
        manifest = json.loads(path.read_bytes())
    except (ValueError, RecursionError) as e:
        raise BundleError(f"{path}: not JSON ({e}); the bundle is damaged, copy it again") from e
    if not isinstance(manifest, dict):
        raise BundleError(f"{path}: expected an object, got {type(manifest).__name__}; this is no groundup bundle")
    return manifest


def _safe(folder: Path, name: str) -> str:
    """``name`` if it stays inside the folder, else an error."""
    parts = PurePosixPath(name).parts
    if (
        not parts
        or name.startswith("/")
        or "\\" in name
        or "\0" in name
        or any(p in {"..", "."} for p in parts)
        or str(PurePosixPath(name)) != name
    ):
        raise BundleError(f"{folder / MANIFEST}: the path {name!r} leaves the bundle's folder; refused")
    if name == MANIFEST:
        raise BundleError(f"{folder / MANIFEST}: a manifest does not list itself")
    return name


def _walk(folder: Path) -> set[str]:
    found = set()
    for root, directories, names in os.walk(folder):
        for entry in directories + names:
            path = Path(root, entry)
            if path.is_symlink():
                raise BundleError(f"{path} is a symbolic link; links are refused in bundles")
        for entry in names:
            path = Path(root, entry)
            info = path.stat(follow_symlinks=False)
            if not stat.S_ISREG(info.st_mode):
                raise BundleError(f"{path} is not a plain file; refused")
            if info.st_nlink > 1:
                raise BundleError(f"{path} is a hard link to a file elsewhere ({info.st_nlink} names); refused, copy the bundle instead")
            found.add(path.relative_to(folder).as_posix())
    return found
