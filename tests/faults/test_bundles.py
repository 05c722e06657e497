"""A bundle that is damaged, edited, foreign or newer is refused by every command that would load it, with a named reason."""

from __future__ import annotations

import json
import os
import pickle
import shutil
import socket
import zipfile
from collections.abc import Callable
from pathlib import Path

import pytest
from command_line import call, command


class Bomb:
    """Pickles into something that leaves a mark when it is loaded."""

    def __init__(self, mark: Path) -> None:
        self.mark = mark

    def __reduce__(self) -> tuple[object, tuple[str]]:
        return (os.mkdir, (str(self.mark),))


def reseal(bundle: Path, **changes: object) -> None:
    """Edit the manifest as somebody who knows how to seal it."""
    from groundup.bundle.manifest import _sealed

    manifest = json.loads((bundle / "bundle.json").read_text())
    manifest.pop("seal")
    (bundle / "bundle.json").write_bytes(_sealed(manifest | changes))


def one_byte(bundle: Path) -> None:
    data = bytearray((bundle / "model.onnx").read_bytes())
    data[len(data) // 2] ^= 1
    (bundle / "model.onnx").write_bytes(data)


def edited(bundle: Path) -> None:
    text = (bundle / "bundle.json").read_text()
    (bundle / "bundle.json").write_text(text.replace('"name": "own"', '"name": "evil"'))


def newer(bundle: Path) -> None:
    reseal(bundle, format=99)


def leaving(bundle: Path) -> None:
    manifest = json.loads((bundle / "bundle.json").read_text())
    reseal(bundle, files=manifest["files"] | {"../../outside": {"bytes": 1, "sha256": "0" * 64}})


def absolute(bundle: Path) -> None:
    manifest = json.loads((bundle / "bundle.json").read_text())
    reseal(bundle, files=manifest["files"] | {"/etc/passwd": {"bytes": 1, "sha256": "0" * 64}})


def linked(bundle: Path) -> None:
    shutil.move(bundle / "model.onnx", bundle.parent / "elsewhere.onnx")
    (bundle / "model.onnx").symlink_to(bundle.parent / "elsewhere.onnx")


def unlisted(bundle: Path) -> None:
    (bundle / "extra.py").write_text("print()")


def lacking(bundle: Path) -> None:
    (bundle / "golden.npz").unlink()


def no_manifest(bundle: Path) -> None:
    (bundle / "bundle.json").unlink()


def a_zip(bundle: Path) -> None:
    with zipfile.ZipFile(bundle.with_suffix(".zip"), "w") as z:
        for path in bundle.iterdir():
            if path.is_file():
                z.write(path, path.name)
    shutil.rmtree(bundle)
    bundle.with_suffix(".zip").rename(bundle)


def a_pickle(bundle: Path) -> None:
    shutil.rmtree(bundle)
    bundle.write_bytes(pickle.dumps(Bomb(bundle.parent / "loaded")))


def a_pickled_manifest(bundle: Path) -> None:
    (bundle / "bundle.json").write_bytes(pickle.dumps(Bomb(bundle.parent / "loaded")))


DAMAGE: list[tuple[Callable[[Path], None], tuple[str, ...]]] = [
    (one_byte, ("model.onnx", "SHA-256", "the bundle is damaged, copy it again")),
    (edited, ("bundle.json", "differs from what was sealed: damaged, or edited by hand")),
    (newer, ("bundle format 99 is newer than this groundup reads (1); upgrade groundup",)),
    (leaving, ("'../../outside'",)),
    (absolute, ("'/etc/passwd'",)),
    (linked, ("model.onnx", "link")),
    (unlisted, ("extra.py is not listed in bundle.json; a bundle holds nothing unlisted, remove it",)),
    (lacking, ("the bundle lacks golden.npz; copy it again",)),
    (no_manifest, ("it has no bundle.json; give the folder that `groundup run` names",)),
    (a_zip, ("is a zip archive; a bundle is a folder with bundle.json in it, and archives or pickles are never loaded",)),
    (a_pickle, ("is a file; a bundle is a folder with bundle.json in it, and archives or pickles are never loaded",)),
    (a_pickled_manifest, ("bundle.json: not JSON",)),
]


@pytest.mark.parametrize("verb", ["serve", "verify", "score", "monitor"])
@pytest.mark.parametrize(("damage", "parts"), DAMAGE, ids=[damage.__name__ for damage, _ in DAMAGE])
def test_refused_before_anything_is_loaded(
    own: Path, tmp_path: Path, verb: str, damage: Callable[[Path], None], parts: tuple[str, ...]
) -> None:
    bundle = tmp_path / "bundle"
    shutil.copytree(own / "build" / "bundle", bundle)
    damage(bundle)
    more = {
        "serve": ["--port", "0"],
        "score": [own / "Daten für März.csv", "-o", tmp_path / "answers.csv"],
        "monitor": ["--log", tmp_path, "-o", tmp_path / "drift.html"],
    }.get(verb, [])
    call(verb, bundle, *more).refused(5, *parts)
    assert {p.name for p in tmp_path.iterdir()} <= {"bundle", "elsewhere.onnx"}, "nothing was loaded, nothing written"


def test_a_run_replaces_a_published_bundle_that_was_damaged(own: Path, tmp_path: Path) -> None:
    from groundup.bundle import Bundle

    folder = tmp_path / "copy"
    shutil.copytree(own, folder, symlinks=True)
    one_byte(folder / "build" / "bundle")
    said = call("run", folder)
    assert said.status == 0, said.err
    assert Bundle.open(folder / "build" / "bundle").name == "own"


def test_a_port_in_use_is_told_with_a_free_one(own: Path) -> None:
    with socket.socket() as taken:
        taken.bind(("127.0.0.1", 0))
        taken.listen()
        port = taken.getsockname()[1]
        said = command("serve", own / "build" / "bundle", "--port", str(port))
    told = said.refused(9, f"cannot listen on 127.0.0.1 port {port}: Address already in use; port ", " is free: --port ")
    assert 0 < int(told.rpartition("--port ")[2]) < 65536


def test_unsafe_and_impossible_addresses(own: Path) -> None:
    bundle = own / "build" / "bundle"
    call("serve", bundle, "--port", "70000").refused(9, "port 70000 does not exist; expected 0 to 65535")
    call("serve", bundle, "--host", "0.0.0.0").refused(1, "there is no token: set GROUNDUP_TOKEN")
    call("serve", bundle, "--host", "203.0.113.1", "--port", "0").refused(1, "there is no token")


@pytest.mark.parametrize("verb", ["verify", "serve"])
def test_a_registry_reference_to_nothing(tmp_path: Path, verb: str) -> None:
    call(verb, "models:/nobody@champion", "--home", tmp_path).refused(5, "no model 'nobody'")
