"""A bundle is read back as it was written, and anything that is not exactly that is refused with a reason."""

from __future__ import annotations

import json
import os
import pickle
import shutil
import socket
import subprocess
import sys
import zipfile

import pytest
from toy_bundle import PROOF, SIGNATURE, sources

from groundup.bundle import Bundle, Signature, write_bundle
from groundup.bundle.manifest import FORMAT, _sealed, content_version
from groundup.errors import BundleError


@pytest.fixture
def bundle(tmp_path):
    return write_bundle(tmp_path / "bundle", sources(), name="toy", task="tabular-regression", signature=SIGNATURE, metrics={"r2": 0.5})


def refused(path, match):
    with pytest.raises(BundleError, match=match):
        Bundle.open(path)


def resealed(bundle, **changes):
    """Rewrite the manifest as somebody would who knows how to seal it."""
    path = bundle.path / "bundle.json"
    manifest = json.loads(path.read_bytes()) | changes
    manifest.pop("seal")
    path.write_bytes(_sealed({k: v for k, v in manifest.items() if v is not ...}))


def test_round_trip(bundle):
    again = Bundle.open(bundle.path)
    assert again == bundle
    assert again.signature == SIGNATURE
    assert again.proofs() == [PROOF]
    assert again.read("model.onnx") == b"a graph" * 100
    assert again.size == sum(len(data) for data in sources().values())
    assert (again.name, again.task, again.metrics) == ("toy", "tabular-regression", {"r2": 0.5})
    assert Signature.from_dict(json.loads(json.dumps(SIGNATURE.to_dict()))) == SIGNATURE


def test_a_notebook_shows_what_it_is(tmp_path):
    bundle = write_bundle(tmp_path / "b", sources(), name="<toy>", task="tabular-regression", signature=SIGNATURE, metrics={"r2": 0.5})
    shown = bundle._repr_html_()
    assert "<caption>&lt;toy&gt;</caption>" in shown
    assert all(f"<td>{text}</td>" in shown for text in ("tabular-regression", "town, age", "prediction", "r2 0.5", "1 of 1 passed"))


def test_version_is_of_the_content(bundle, tmp_path):
    same = write_bundle(tmp_path / "same", sources(), name="other name", task="tabular-regression", signature=SIGNATURE)
    other = write_bundle(
        tmp_path / "other", sources(**{"README.md": b"# toi\n"}), name="toy", task="tabular-regression", signature=SIGNATURE
    )
    assert same.version == bundle.version
    assert other.version != bundle.version
    assert content_version(bundle.files) == bundle.version


@pytest.mark.parametrize("name", ["bundle.json", *sources()])
def test_one_flipped_bit_anywhere_is_noticed(bundle, name):
    path = bundle.path / name
    data = path.read_bytes()
    for at in sorted({0, len(data) // 2, len(data) - 1, *range(0, len(data), max(1, len(data) // 40))}):
        flipped = bytearray(data)
        flipped[at] ^= 1
        path.write_bytes(flipped)
        refused(bundle.path, ".")
    path.write_bytes(data)
    assert Bundle.open(bundle.path) == bundle


@pytest.mark.parametrize("name", ["model.onnx", "deep/er/config.json", "bundle.json"])
def test_a_truncated_or_longer_file_is_noticed(bundle, name):
    path = bundle.path / name
    data = path.read_bytes()
    for changed in (data[:-1], data + b" ", b""):
        path.write_bytes(changed)
        refused(bundle.path, ".")


def test_a_newer_format_says_upgrade(bundle):
    resealed(bundle, format=FORMAT + 1)
    refused(bundle.path, f"format {FORMAT + 1} is newer than this groundup reads .*upgrade")


@pytest.mark.parametrize("value", [None, "1", 1.0, True, 0, -1])
def test_a_format_that_is_none(bundle, value):
    resealed(bundle, format=value)
    refused(bundle.path, "whole number under 'format'")


ESCAPES = ["../outside", "/etc/passwd", "a/../../b", "a/./b", "", ".", "a//b", "a\\b", "a\0b", "bundle.json", "deep/../model.onnx", "a/"]


@pytest.mark.parametrize("name", ESCAPES)
def test_a_name_that_leaves_the_folder(bundle, name):
    files = {**bundle.files, name: {"sha256": "0" * 64, "bytes": 1}}
    resealed(bundle, files=files)
    refused(bundle.path, "leaves the bundle's folder|does not list itself")
    with pytest.raises(BundleError, match=r"leaves the bundle's folder|does not list itself"):
        write_bundle(bundle.path, sources(**{name: b"x"}), name="toy", task="tabular-regression", signature=SIGNATURE)


@pytest.mark.parametrize(
    ("changes", "match"),
    [
        ({"files": ...}, "damaged manifest"),
        ({"files": []}, "damaged manifest"),
        ({"files": {"model.onnx": {"bytes": 1}}}, "damaged manifest"),
        ({"files": {"model.onnx": "x"}}, "damaged manifest"),
        ({"files": {"model.onnx": {"bytes": "700", "sha256": "0" * 64}}}, "size in bytes"),
        ({"files": {"model.onnx": {"bytes": -1, "sha256": "0" * 64}}}, "size in bytes"),
        ({"files": {"model.onnx": {"bytes": 700, "sha256": "xyz"}}}, "SHA-256"),
        ({"signature": ...}, "damaged manifest"),
        ({"signature": []}, "damaged manifest"),
        ({"signature": {"inputs": [7], "outputs": []}}, "damaged manifest"),
        ({"signature": {"inputs": [{"nom": "x"}], "outputs": []}}, "damaged manifest"),
        ({"name": ...}, "damaged manifest"),
        ({"name": 7}, "'name' is a int"),
        ({"graph": ["model.onnx"]}, "'graph' is a list"),
        ({"graph": "other.onnx"}, "not among its files"),
        ({"metrics": []}, "'metrics' is a list"),
        ({"version": "0" * 12}, "its files make"),
    ],
)
def test_a_sealed_manifest_of_nonsense(bundle, changes, match):
    resealed(bundle, **changes)
    refused(bundle.path, match)


def test_an_edit_by_hand_is_noticed(bundle):
    path = bundle.path / "bundle.json"
    path.write_text(path.read_text().replace('"r2": 0.5', '"r2": 0.9'))
    refused(bundle.path, "edited by hand")


@pytest.mark.parametrize(
    "content",
    [
        b"",
        b"{",
        b"[]",
        b'"bundle"',
        b"\xff\xfe",
        b"[" * 100_000,
        b'{"a":' * 100_000,
        b'{"format": 1, "x": NaN}',
        b'{"format": 1}',
        b"1e999999",
    ],
)
def test_a_manifest_that_is_none(bundle, content):
    (bundle.path / "bundle.json").write_bytes(content)
    refused(bundle.path, "not JSON|expected an object|sealed|format")


def test_a_deep_but_valid_manifest(bundle):
    (bundle.path / "bundle.json").write_bytes(b'{"format": 1, "x": ' + b"[" * 500 + b"]" * 500 + b"}")
    refused(bundle.path, "sealed")


def test_a_huge_manifest_is_not_read(bundle):
    with open(bundle.path / "bundle.json", "ab") as f:
        f.truncate(1 << 34)  # sparse: 16 GiB on paper
    refused(bundle.path, "too large for a manifest")


def test_foreign_and_missing_files(bundle):
    (bundle.path / "deep" / "evil.py").write_text("import os")
    refused(bundle.path, r"deep/evil.py is not listed")
    (bundle.path / "deep" / "evil.py").unlink()
    (bundle.path / "README.md").unlink()
    refused(bundle.path, "lacks README.md")


def test_a_symbolic_link_is_refused_whatever_it_points_to(bundle, tmp_path):
    outside = tmp_path / "outside.onnx"
    shutil.move(bundle.path / "model.onnx", outside)
    (bundle.path / "model.onnx").symlink_to(outside)
    refused(bundle.path, "symbolic link")


def test_a_linked_folder_is_refused(bundle, tmp_path):
    shutil.move(bundle.path / "deep", tmp_path / "deep")
    (bundle.path / "deep").symlink_to(tmp_path / "deep", target_is_directory=True)
    refused(bundle.path, "symbolic link")


def test_a_linked_manifest_is_refused(bundle, tmp_path):
    shutil.move(bundle.path / "bundle.json", tmp_path / "bundle.json")
    (bundle.path / "bundle.json").symlink_to(tmp_path / "bundle.json")
    refused(bundle.path, "links are refused")


@pytest.mark.parametrize("name", ["model.onnx", "bundle.json"])
def test_a_hard_link_is_refused(bundle, tmp_path, name):
    os.link(bundle.path / name, tmp_path / "second-name")
    refused(bundle.path, "hard link")


@pytest.mark.parametrize("make", [os.mkfifo, lambda path: socket.socket(socket.AF_UNIX).bind(str(path))])
@pytest.mark.filterwarnings("ignore::ResourceWarning")
def test_pipes_and_sockets_are_refused_without_waiting(bundle, make, monkeypatch):
    monkeypatch.chdir(bundle.path)  # socket paths are short
    (bundle.path / "model.onnx").unlink()
    make("model.onnx")
    refused(bundle.path, "not a plain file")


def test_a_pipe_as_manifest_does_not_block(bundle):
    (bundle.path / "bundle.json").unlink()
    os.mkfifo(bundle.path / "bundle.json")
    refused(bundle.path, "not a plain file")


def test_what_only_poses_as_a_bundle(tmp_path):
    refused(tmp_path / "nowhere", "no bundle at")
    (tmp_path / "empty").mkdir()
    refused(tmp_path / "empty", "has no bundle.json")
    (tmp_path / "model.pkl").write_bytes(pickle.dumps({"model": 1}))
    refused(tmp_path / "model.pkl", "is a file; a bundle is a folder")
    with zipfile.ZipFile(tmp_path / "bundle.zip", "w") as archive:
        archive.writestr("bundle.json", "{}")
    refused(tmp_path / "bundle.zip", "is a zip archive")
    (tmp_path / "folder" / "bundle.json").mkdir(parents=True)
    refused(tmp_path / "folder", "not a plain file|cannot be opened")


class TestSwappedAfterOpening:
    def test_other_bytes_of_the_same_length(self, bundle):
        (bundle.path / "model.onnx").write_bytes(b"b graph" * 100)
        with pytest.raises(BundleError, match="SHA-256"):
            bundle.read("model.onnx")

    def test_another_length(self, bundle):
        (bundle.path / "model.onnx").write_bytes(b"b")
        with pytest.raises(BundleError, match="expected 700 bytes, got 1"):
            bundle.read("model.onnx")

    def test_a_link_or_a_pipe(self, bundle, tmp_path):
        shutil.move(bundle.path / "model.onnx", tmp_path / "elsewhere")
        (bundle.path / "model.onnx").symlink_to(tmp_path / "elsewhere")
        with pytest.raises(BundleError, match="links are refused"):
            bundle.read("model.onnx")
        (bundle.path / "model.onnx").unlink()
        os.mkfifo(bundle.path / "model.onnx")
        with pytest.raises(BundleError, match="not a plain file"):
            bundle.read("model.onnx")

    def test_a_second_name(self, bundle, tmp_path):
        os.link(bundle.path / "model.onnx", tmp_path / "second-name")
        with pytest.raises(BundleError, match="hard link"):
            bundle.read("model.onnx")

    def test_gone(self, bundle):
        (bundle.path / "model.onnx").unlink()
        with pytest.raises(BundleError, match="cannot be opened"):
            bundle.read("model.onnx")

    def test_a_name_that_was_never_listed(self, bundle):
        with pytest.raises(BundleError, match=r"no file '\.\./secret' in this bundle"):
            bundle.read("../secret")


def test_proofs_that_are_none(tmp_path):
    for content in (b"[7]", b"{}x", b'[{"link": 3}]', b"7", b"\xff"):
        bundle = write_bundle(
            tmp_path / "bundle", sources(**{"proofs.json": content}), name="toy", task="tabular-regression", signature=SIGNATURE
        )
        with pytest.raises(BundleError, match="not the proofs"):
            bundle.proofs()


def test_a_failed_write_leaves_the_old_bundle(bundle):
    def write(**fields):
        write_bundle(bundle.path, sources(more=b"more"), task="tabular-regression", signature=SIGNATURE, **fields)

    with pytest.raises(BundleError, match="not among its files"):
        write(name="toy", graph="absent.onnx")
    with pytest.raises(TypeError, match="no field 'colour'"):
        write(name="toy", colour="red")
    with pytest.raises(ValueError, match="JSON compliant"):
        write(name="toy", metrics={"r2": float("nan")})
    assert Bundle.open(bundle.path) == bundle
    assert [p.name for p in bundle.path.parent.iterdir()] == ["bundle"]


def test_memory_stays_small_while_a_large_bundle_is_opened(tmp_path):
    big = tmp_path / "big"
    with open(big, "wb") as f:
        f.truncate(256 << 20)
    bundle = write_bundle(tmp_path / "bundle", {"model.onnx": big}, name="big", task="tabular-regression", signature=SIGNATURE)
    code = (
        "import re, sys; from pathlib import Path; from groundup.bundle import Bundle; Bundle.open(sys.argv[1]); "
        "print(int(re.search(r'VmHWM:\\s+(\\d+)', Path('/proc/self/status').read_text())[1]) // 1024)"  # ru_maxrss is inherited
    )
    done = subprocess.run([sys.executable, "-c", code, str(bundle.path)], capture_output=True, text=True, check=True)
    assert int(done.stdout) < 150, "MiB, of a bundle of 256"
