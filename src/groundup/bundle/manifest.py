"""The bundle: a folder of plain files that leaves training and enters serving, checked before anything is loaded.

    bundle.json          this manifest: name, version, task, signature, hashes of every other file, and a seal of itself
    model.onnx           raw record in, answer out
    proofs.json          what was measured, with tolerances
    golden.npz           inputs and answers for the self-test
    profile.json         what the training inputs looked like
    README.md            the model card

Nothing in a bundle is pickled.  :meth:`Bundle.open` refuses a folder in which one byte differs, whose paths leave the
folder, that holds links or files nobody listed, or whose format is newer than this code.  :meth:`Bundle.read` returns
the very bytes that were hashed, so a file swapped after the check is noticed.

Hashes and seal tell damage and carelessness.  They are no signature: who can write the folder can seal it again.
"""

from __future__ import annotations

import dataclasses
import hashlib
import json
import os
import re
import shutil
import zipfile
from collections.abc import Iterator, Mapping
from contextlib import contextmanager
from dataclasses import dataclass, field
from datetime import UTC, datetime
from pathlib import Path
from typing import Any, BinaryIO

from groundup.bundle import shown
from groundup.bundle.entries import MANIFEST, plain_file, safe_name, walk
from groundup.bundle.files import sha256, to_json, whole_directory, write_bytes
from groundup.bundle.proof import Proof
from groundup.bundle.signature import Signature
from groundup.errors import BundleError

FORMAT = 1
_MAX_MANIFEST = 16 << 20
_CHUNK = 1 << 20
_DAMAGED = "the bundle is damaged, copy it again"
_TEXTS = ("name", "version", "task", "graph", "created", "data_hash", "code_hash")
_TABLES = ("metrics", "compression", "environment", "serve", "monitor")


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
        """Open and verify the bundle in the folder ``path``, in constant memory.  ``path`` itself may be a link: it is the caller's.

        Raises:
            BundleError: not a bundle, damaged, foreign files, unsafe paths, or a newer format.
        """
        folder = Path(path)
        bundle = cls._from_manifest(folder, *_read_manifest(folder))
        present = walk(folder)
        listed = set(bundle.files)
        if missing := sorted(listed - present):
            raise BundleError(f"{folder}: the bundle lacks {', '.join(missing)}; copy it again from where it was made")
        if foreign := sorted(present - listed - {MANIFEST}):
            raise BundleError(f"{folder}: {', '.join(foreign)} is not listed in {MANIFEST}; a bundle holds nothing unlisted, remove it")
        for name in bundle.files:
            bundle.verify(name)
        if (version := content_version(bundle.files)) != bundle.version:
            raise BundleError(f"{folder}: {MANIFEST} says version {bundle.version}, its files make {version}; it was edited by hand")
        return bundle

    @classmethod
    def _from_manifest(cls, folder: Path, manifest: dict[str, Any], raw: bytes) -> Bundle:
        made_for = manifest.get("format")
        if type(made_for) is not int or made_for < 1:
            raise BundleError(f"{folder / MANIFEST}: expected a whole number under 'format', got {made_for!r}; this is no groundup bundle")
        if made_for > FORMAT:
            raise BundleError(f"{folder}: bundle format {made_for} is newer than this groundup reads ({FORMAT}); upgrade groundup")
        _expect_sealed(folder, manifest, raw)
        known = {k: manifest[k] for k in (*_TEXTS, *_TABLES) if k in manifest}
        for key, value in known.items():
            if not isinstance(value, str if key in _TEXTS else dict):
                raise BundleError(
                    f"{folder / MANIFEST}: {key!r} is a {type(value).__name__}; the manifest is damaged, copy the bundle again"
                )
        try:
            files = {safe_name(folder, name): _entry(folder, name, entry) for name, entry in manifest["files"].items()}
            bundle = cls(path=folder, files=files, signature=Signature.from_dict(manifest["signature"]), **known)
        except BundleError:
            raise
        except (KeyError, TypeError, AttributeError, ValueError) as e:
            raise BundleError(f"{folder / MANIFEST}: damaged manifest: {type(e).__name__} {e}; copy the bundle again") from e
        if bundle.graph not in files:
            raise BundleError(f"{folder / MANIFEST}: the graph {bundle.graph!r} is not among its files")
        return bundle

    def read(self, name: str) -> bytes:
        """The bytes of one listed file, verified as they are read.

        Raises:
            BundleError: not listed, a link, or not the bytes that the manifest promises.
        """
        with self._listed(name) as (f, entry):
            data = f.read(entry["bytes"])
            self._expect_hash(name, entry, hashlib.sha256(data), more=f.read(1))
        return data

    def verify(self, name: str) -> None:
        """As :meth:`read`, without keeping the bytes."""
        with self._listed(name) as (f, entry):
            digest = hashlib.sha256()
            left = entry["bytes"]
            while left > 0 and (chunk := f.read(min(left, _CHUNK))):
                digest.update(chunk)
                left -= len(chunk)
            self._expect_hash(name, entry, digest, more=f.read(1))

    @contextmanager
    def _listed(self, name: str) -> Iterator[tuple[BinaryIO, Mapping[str, Any]]]:
        """A listed file, opened, if it is a plain file of the promised size."""
        entry = self.files.get(name)
        if entry is None:
            raise BundleError(f"{self.path}: no file {name!r} in this bundle; it has {', '.join(sorted(self.files))}")
        with plain_file(self.path / name) as f:
            if (size := os.fstat(f.fileno()).st_size) != entry["bytes"]:
                raise BundleError(f"{self.path / name}: expected {entry['bytes']} bytes, got {size}; {_DAMAGED}")
            yield f, entry

    def _expect_hash(self, name: str, entry: Mapping[str, Any], digest: Any, more: bytes) -> None:
        if more or digest.hexdigest() != entry["sha256"]:
            found = "more bytes than it had" if more else f"SHA-256 {digest.hexdigest()[:16]}…"
            raise BundleError(f"{self.path / name}: {found}, expected {entry['sha256'][:16]}…; {_DAMAGED}")

    def proofs(self) -> list[Proof]:
        """The proofs that were made while the bundle was."""
        if "proofs.json" not in self.files:
            return []
        try:
            return [Proof.from_dict(p) for p in json.loads(self.read("proofs.json"))]
        except (TypeError, KeyError, AttributeError, RecursionError, json.JSONDecodeError, UnicodeDecodeError) as e:
            raise BundleError(
                f"{self.path / 'proofs.json'}: not the proofs that groundup writes ({type(e).__name__}: {e}); {_DAMAGED}"
            ) from e

    @property
    def size(self) -> int:
        """Bytes of all listed files."""
        return sum(int(entry["bytes"]) for entry in self.files.values())

    def _repr_html_(self) -> str:
        """What a notebook shows."""
        proofs = self.proofs()
        rows = {
            "task": self.task,
            "version": f"{self.version}, made {self.created}",
            "takes": ", ".join(f.name for f in self.signature.inputs),
            "gives": ", ".join(f.name for f in self.signature.outputs),
            "test split": ", ".join(f"{name} {value:.4g}" for name, value in self.metrics.items() if value is not None),
            "graph": f"{self.graph}, {self.files[self.graph]['bytes']:,} of {self.size:,} bytes",
            "proofs": f"{sum(p.passed for p in proofs)} of {len(proofs)} passed",
        }
        return shown.facts(self.name, rows)


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
    """Write a bundle folder whole or not at all, verified before it takes its name.

    Args:
        sources: relative POSIX path in the bundle -> the file to copy, or its bytes.
        fields: the further attributes of :class:`Bundle` (metrics, compression, environment, ...).

    Raises:
        BundleError: the graph is not among the sources, a path leaves the folder; a bundle that stood at ``path`` still does.
        StorageError: the folder cannot be written.
    """
    if unknown := sorted(fields.keys() - {f.name for f in dataclasses.fields(Bundle)}):
        raise TypeError(f"a bundle has no field {unknown[0]!r}")
    with whole_directory(path) as folder:
        files: dict[str, dict[str, Any]] = {}
        for relative, source in sources.items():
            target = folder / safe_name(path, relative)
            target.parent.mkdir(parents=True, exist_ok=True)
            if isinstance(source, bytes):
                target.write_bytes(source)
            else:
                shutil.copyfile(source, target)
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
        write_bytes(folder / MANIFEST, _sealed(manifest))
        bundle = Bundle.open(folder)
    return dataclasses.replace(bundle, path=path)


def copied(bundle: Bundle, path: Path, replaced: Mapping[str, bytes], **changed: Any) -> Bundle:
    """The bundle again at ``path``, with some files' bytes and some attributes replaced."""
    fields = ("created", "data_hash", "code_hash", "metrics", "compression", "environment", "serve", "monitor")
    return write_bundle(
        path,
        {**{name: bundle.read(name) for name in bundle.files}, **replaced},
        name=bundle.name,
        task=bundle.task,
        signature=bundle.signature,
        graph=bundle.graph,
        **{**{f: getattr(bundle, f) for f in fields}, **changed},
    )


def _sealed(manifest: Mapping[str, Any]) -> bytes:
    """The manifest's file: its JSON, with the hash of that JSON as the last key."""
    return to_json({**manifest, "seal": hashlib.sha256(to_json(manifest)).hexdigest()})


def _expect_sealed(folder: Path, manifest: Mapping[str, Any], raw: bytes) -> None:
    """Refuse a manifest that is not, byte for byte, what was written."""
    content = {k: v for k, v in manifest.items() if k != "seal"}
    try:
        same = raw == _sealed(content)
    except (ValueError, RecursionError):  # NaN, lone surrogates: never written by groundup
        same = False
    if not same:
        raise BundleError(
            f"{folder / MANIFEST}: differs from what was sealed: damaged, or edited by hand; package it again or copy it again"
        )


def _entry(folder: Path, name: str, entry: Any) -> dict[str, Any]:
    size, digest = entry["bytes"], entry["sha256"]
    if type(size) is not int or size < 0 or not isinstance(digest, str) or not re.fullmatch("[0-9a-f]{64}", digest):
        raise BundleError(f"{folder / MANIFEST}: {name!r} needs its size in bytes and its SHA-256, got {entry!r}")
    return {"sha256": digest, "bytes": size}


def _read_manifest(folder: Path) -> tuple[dict[str, Any], bytes]:
    """The manifest and the bytes that it was read from."""
    if folder.is_file():
        kind = "a zip archive" if zipfile.is_zipfile(folder) else "a file"
        raise BundleError(f"{folder} is {kind}; a bundle is a folder with {MANIFEST} in it, and archives or pickles are never loaded")
    if not folder.is_dir():
        raise BundleError(f"no bundle at {folder}: expected a folder with {MANIFEST} in it; `groundup run` writes one")
    path = folder / MANIFEST
    if not os.path.lexists(path):
        raise BundleError(f"{folder} is no bundle: it has no {MANIFEST}; give the folder that `groundup run` names in its last lines")
    with plain_file(path) as f:
        raw = f.read(_MAX_MANIFEST + 1)
    if len(raw) > _MAX_MANIFEST:
        raise BundleError(f"{path}: too large for a manifest (at most {_MAX_MANIFEST} bytes); this is no groundup bundle")
    try:
        manifest = json.loads(raw)
    except (ValueError, RecursionError) as e:
        raise BundleError(f"{path}: not JSON ({e}); {_DAMAGED}") from e
    if not isinstance(manifest, dict):
        raise BundleError(f"{path}: expected an object, got {type(manifest).__name__}; this is no groundup bundle")
    return manifest, raw
