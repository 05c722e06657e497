"""A folder of images, a class a subfolder: ``pets/cat/1.jpg``, ``pets/dog/holiday/2.png``.

Any file that Pillow reads, in any mode: palettes and CMYK become colours, 16-bit greys lose their low byte, transparency
shows white, cameras' orientation marks are obeyed, of an animation the first frame counts.  A file that cannot be decoded
goes to quarantine with the reason.
"""

from __future__ import annotations

import warnings
from collections import Counter
from collections.abc import Iterator
from concurrent.futures import ThreadPoolExecutor
from pathlib import Path
from typing import Any

import numpy as np
from numpy.typing import NDArray

from groundup.data.settings import Data, Image
from groundup.data.sources.base import Arrays, ArraySource, BadRow, Source
from groundup.errors import DataError

MOST_PIXELS = 100_000_000  # a file that says it has more is refused before it is decoded
_GREY = {"1", "L", "LA", "I", "I;16", "I;16B", "I;16L", "F"}


def claim(section: Data, root: Path) -> Source | None:
    path = root / section.source
    if "://" in section.source or (section.format != "images" and (section.format is not None or not path.is_dir())):
        return None
    if not path.is_dir():
        raise DataError(f"no folder {section.source} (looked in {path.parent})")
    return Folder(path, section.source, section.image)


class Folder(ArraySource):
    task, target = "image-classification", "class"

    def __init__(self, path: Path, where: str, image: Image) -> None:
        self.path, self.where, self.image = path, where, image

    def identity(self) -> str:
        from groundup.data.hashing import folder_hash

        return folder_hash(self._files()[0], self.path)

    def files(self) -> tuple[list[Path], list[Path]]:
        """Image files in order of folder and name, and what lies beside them."""
        from PIL import Image as Pillow

        endings = set(Pillow.registered_extensions())
        every = sorted(p for p in self.path.rglob("*") if p.is_file() and not p.name.startswith("."))
        images = [p for p in every if p.suffix.lower() in endings]
        return images, [p for p in every if p.suffix.lower() not in endings]

    def _files(self) -> tuple[list[Path], list[Path]]:
        """:meth:`files`, each in the folder of its class."""
        images, others = self.files()
        loose = [p for p in images if p.parent == self.path]
        if not images:
            raise DataError(f"{self.where} holds no images; expected a subfolder for each class with the images in it")
        if loose:
            raise DataError(f"{self.where}/{loose[0].name} stands in no class; put each image into a subfolder named as its class")
        return images, others

    def load(self, work: Path, limit: int | None = None) -> Arrays:
        with warnings.catch_warnings():
            warnings.simplefilter("ignore")  # Pillow warns about sizes, which are checked here, and about odd metadata
            return self._load(work, limit)

    def _load(self, work: Path, limit: int | None) -> Arrays:
        files, others = self._files()
        files = files[:limit]
        notes = [f"files that are no images were passed over: {len(others)} (such as {others[0].name})"] if others else []
        names = [p.relative_to(self.path).parts[0] for p in files]
        empty = sorted({p.name for p in self.path.iterdir() if p.is_dir() and not p.name.startswith(".")} - set(names))
        if empty and limit is None:
            notes.append(f"folders without images are no classes: {', '.join(empty)}")
        mode, (height, width) = self._usual(files)
        x = np.lib.format.open_memmap(work / "images.npy", "w+", np.uint8, (len(files), height, width, 1 if mode == "L" else 3))
        kept: list[int] = []
        bad: list[BadRow] = []
        for row, pixels in enumerate(decoded(files, mode, (width, height))):
            if isinstance(pixels, str):
                bad.append(BadRow(row, str(files[row].relative_to(self.path)), pixels))
            else:
                x[len(kept)] = pixels
                kept.append(row)
        if not kept:
            raise DataError(f"none of the {len(files)} images in {self.where} can be decoded; the first: {bad[0].column}: {bad[0].reason}")
        y = np.array([names[row] for row in kept], dtype=object)
        return Arrays(self.where, "image", x[: len(kept)], y, "class", self.task, rows=np.array(kept, np.int64), bad=bad, notes=notes)

    def _usual(self, files: list[Path]) -> tuple[str, tuple[int, int]]:
        """The mode and the (height, width) asked for, or those of most images, read from the files' headers."""
        if self.image.mode is not None and self.image.size is not None:
            return self.image.mode, self.image.size
        modes: Counter[str] = Counter()
        sizes: Counter[tuple[int, int]] = Counter()
        for path in files:
            try:
                with _opened(path) as im:
                    turned = im.getexif().get(0x0112, 1) >= 5  # orientation 5 to 8 swap the axes
                    modes["L" if im.mode in _GREY else "RGB"] += 1
                    sizes[(im.width, im.height) if turned else (im.height, im.width)] += 1
            except _UNREADABLE:
                continue  # decoding will say why
        if not modes:
            return self.image.mode or "RGB", self.image.size or (1, 1)
        usual = max(sizes, key=lambda s: (sizes[s], s))
        return self.image.mode or max(modes, key=lambda m: (modes[m], m)), self.image.size or usual


_UNREADABLE = (OSError, SyntaxError, ValueError, EOFError, MemoryError)  # what Pillow's decoders raise on damaged files


def _opened(path: Path) -> Any:
    from PIL import Image as Pillow

    try:
        im = Pillow.open(path)
    except Pillow.DecompressionBombError as e:
        raise ValueError(f"more than {MOST_PIXELS:,} pixels") from e
    if im.width * im.height > MOST_PIXELS:
        im.close()
        raise ValueError(f"{im.width} × {im.height} is more than {MOST_PIXELS:,} pixels")
    return im


def decoded(files: list[Path], mode: str, size: tuple[int, int]) -> Iterator[NDArray[np.uint8] | str]:
    """Pixels (H, W, C) or the reason why there are none, file by file, decoded on two threads, few in memory."""
    with ThreadPoolExecutor(2) as pool:
        for start in range(0, len(files), 64):
            yield from pool.map(lambda path: _pixels(path, mode, size), files[start : start + 64])


def _pixels(path: Path, mode: str, size: tuple[int, int]) -> NDArray[np.uint8] | str:
    from PIL import Image as Pillow
    from PIL import ImageOps

    try:
        with _opened(path) as im:
            im.load()
            turned = ImageOps.exif_transpose(im) or im
            flat = _flat(turned).convert(mode)
            if flat.size != size:
                flat = flat.resize(size, Pillow.Resampling.BILINEAR)
            pixels = np.asarray(flat, np.uint8)
    except _UNREADABLE as e:
        return f"cannot be decoded: {' '.join(str(e).split())[:120] or type(e).__name__}".replace(str(path), path.name)
    return pixels[..., None] if pixels.ndim == 2 else pixels


def _flat(im: Any) -> Any:
    """8 bits a channel, transparency laid on white."""
    from PIL import Image as Pillow

    if im.mode.startswith("I"):  # 16-bit greys, and 32-bit ones that hold 16 bits
        return Pillow.fromarray((np.clip(np.asarray(im, np.int64), 0, 65535) >> 8).astype(np.uint8))
    if im.mode == "F":
        raise ValueError("floating-point pixels have no agreed range; save as 8 or 16 bits")
    if im.mode in ("LA", "PA", "RGBA", "RGBa", "La") or "transparency" in im.info:
        clear = im.convert("RGBA")
        return Pillow.alpha_composite(Pillow.new("RGBA", clear.size, "white"), clear)
    return im
