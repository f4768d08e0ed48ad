"""PNG files byte by byte: what no program writes, or none that is at hand."""

from __future__ import annotations

import struct
import zlib


def chunk(kind: bytes, body: bytes) -> bytes:
    """Returns a part of a PNG with its length and checksum."""
    return struct.pack(">I", len(body)) + kind + body + struct.pack(">I", zlib.crc32(kind + body))


def assembled(*chunks: tuple[bytes, bytes]) -> bytes:
    """Returns the PNG of these chunks, each a kind and a body."""
    return b"\x89PNG\r\n\x1a\n" + b"".join(chunk(kind, body) for kind, body in chunks)


def png(width: int, height: int, depth: int, color: int, rows: bytes, *more: tuple[bytes, bytes]) -> bytes:
    """Returns a PNG of these rows, each behind its byte of the filter, and of more chunks that stand before them.

    Args:
        depth: Bits of a sample.
        color: The format's number of a kind of colours: 0 grey, 2 RGB, 4 and 6 these with opacity.
    """
    header = struct.pack(">IIBBBBB", width, height, depth, color, 0, 0, 0)
    return assembled((b"IHDR", header), *more, (b"IDAT", zlib.compress(rows)), (b"IEND", b""))
