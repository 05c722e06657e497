"""PNG from an array, in the standard library alone (W3C PNG specification, 3rd edition, sections 5 and 9)."""

from __future__ import annotations

import struct
import zlib
from typing import Any

import numpy as np
from numpy.typing import NDArray

_KINDS = {1: 0, 3: 2, 4: 6}
"""Channels -> colour type."""


def encode(image: NDArray[Any], largest: int = 128) -> bytes:
    """PNG bytes of a uint8 image (H, W), (H, W, 1) grey, (H, W, 3) colour or (H, W, 4) colour and opacity.

    A side longer than ``largest`` pixels is shrunk by averaging whole blocks, so that a page of mistakes stays small.
    """
    pixels = np.asarray(image)
    if pixels.ndim == 2:
        pixels = pixels[:, :, None]
    if pixels.dtype != np.uint8 or pixels.ndim != 3 or pixels.shape[2] not in _KINDS:
        raise ValueError(f"expected a uint8 image (H, W), (H, W, 1), (H, W, 3) or (H, W, 4), got {pixels.dtype} {np.shape(image)}")
    pixels = _shrink(pixels, largest)
    height, width, channels = pixels.shape
    # Every scanline begins with its filter type; 0 is none.
    lines = np.concatenate([np.zeros((height, 1), np.uint8), pixels.reshape(height, -1)], axis=1)
    header = struct.pack(">IIBBBBB", width, height, 8, _KINDS[channels], 0, 0, 0)
    chunks = (b"IHDR", header), (b"IDAT", zlib.compress(lines.tobytes(), 9)), (b"IEND", b"")
    return b"\x89PNG\r\n\x1a\n" + b"".join(_chunk(kind, data) for kind, data in chunks)


def _chunk(kind: bytes, data: bytes) -> bytes:
    return struct.pack(">I", len(data)) + kind + data + struct.pack(">I", zlib.crc32(kind + data))


def _shrink(pixels: NDArray[Any], largest: int) -> NDArray[Any]:
    height, width, channels = pixels.shape
    factor = -(-max(height, width) // largest)
    if factor <= 1:
        return pixels
    h, w = max(1, height // factor), max(1, width // factor)
    fh, fw = min(factor, height), min(factor, width)
    blocks = pixels[: h * fh, : w * fw].reshape(h, fh, w, fw, channels)
    return np.asarray(blocks.mean((1, 3)).round().astype(np.uint8))
