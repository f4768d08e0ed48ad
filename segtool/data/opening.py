"""Opening an image file: told by content, single-frame, within the limit on pixels, closed in the end.

Pillow's plug-ins are called directly, so no parser outside the closed list ever sees a file, and the limit on pixels is
ours and holds before anything is decoded. Whatever a decoder raises becomes a DataError that names the file.
"""

from __future__ import annotations

import contextlib
import ctypes
import logging
import os
import stat
import struct
import threading
import warnings
from collections.abc import Callable, Collection, Generator
from dataclasses import dataclass
from pathlib import Path
from typing import Any, BinaryIO

from PIL import BmpImagePlugin, GifImagePlugin, Image, JpegImagePlugin, PngImagePlugin, TiffImagePlugin, WebPImagePlugin
from PIL.ImageFile import ImageFile

from segtool.data.declared import fault_of_jpeg, fault_of_png, fault_of_tiff, tiff_tag
from segtool.errors import DataError, shown

_ORIENTATION = 0x0112
UNKNOWN_MODE = "unknown"
"""Mode of a TIFF whose header is sound and whose samples Pillow does not read."""
SAMPLES_A_PIXEL = 16
"""Of a TIFF of more samples, as many count as a pixel under `limits.max_pixels`."""

_UNKNOWN_SAMPLES = ("unknown pixel mode", "samples per pixel")  # Pillow's words; the latter for more than 6


class _TiffHeader(TiffImagePlugin.TiffImageFile):
    """Opens TIFFs of any samples, so that the message can tell what was found and tifffile may read them."""

    def _setup(self) -> None:
        try:
            super()._setup()
        except (SyntaxError, IndexError) as error:  # IndexError: more planes than Pillow has names for
            if isinstance(error, SyntaxError) and not any(reason in str(error) for reason in _UNKNOWN_SAMPLES):
                raise
            self._mode = UNKNOWN_MODE


_PLUGINS: dict[str, Callable[[BinaryIO, str], ImageFile]] = {
    "PNG": PngImagePlugin.PngImageFile,
    "JPEG": JpegImagePlugin.JpegImageFile,
    "TIFF": _TiffHeader,
    "BMP": BmpImagePlugin.BmpImageFile,
    "WebP": WebPImagePlugin.WebPImageFile,
    "GIF": GifImagePlugin.GifImageFile,
}
_SIGNATURES = (
    (b"\x89PNG\r\n\x1a\n", "PNG"),
    (b"\xff\xd8\xff", "JPEG"),
    (b"II*\0", "TIFF"),
    (b"MM\0*", "TIFF"),
    (b"II+\0", "TIFF"),
    (b"MM\0+", "TIFF"),
    (b"BM", "BMP"),
    (b"GIF87a", "GIF"),
    (b"GIF89a", "GIF"),
    # Named in messages only.
    (b"%PDF", "PDF"),
    (b"%!PS", "EPS"),
    (b"8BPS", "PSD"),
    (b"\0\0\1\0", "ICO"),
    (b"SIMPLE", "FITS"),
    (b"\x93NUMPY", "NPY"),
    (b"PK\3\4", "ZIP"),
    (b"\x1f\x8b", "gzip"),
)
_lock = threading.RLock()


@dataclass(frozen=True)
class Opened:
    """An image whose header is read and whose pixels are not."""

    path: Path
    format: str
    image: ImageFile
    bits: int
    """Bits of one stored sample."""
    samples: int
    """Stored samples of one pixel; 1 for a palette."""
    file: BinaryIO
    """What the image reads from."""


@contextlib.contextmanager
def open_image(path: Path, *, formats: Collection[str], max_pixels: int) -> Generator[Opened]:
    """Opens one of `formats`, single-frame and within `max_pixels`, and closes it in the end.

    Raises:
        DataError: not a file, empty, not readable, of another format, broken in its header, too large, or animated.
    """
    with _open_file(path) as file:
        head = guarded(path, lambda: file.read(64))
        format_ = _sniff(path, head, formats)
        if format_ == "PNG" and len(head) >= 24:
            width, height = struct.unpack(">II", head[16:24])
            _guard_pixels(path, (width, height), max_pixels)
        file.seek(0)
        image = guarded(path, lambda: _construct(format_, file, path))
        try:
            bits, samples = _sample_layout(format_, image, head)
            _guard_pixels(path, image.size, max_pixels, samples)
            _guard_frames(path, image)
            _guard_declared(path, format_, image, file)
            yield Opened(path, format_, image, bits, samples, file)
        finally:
            image.close()


def load_pixels(opened: Opened) -> Image.Image:
    """Returns the image with its pixels decoded. Raises DataError for a truncated or corrupt file."""

    if opened.format == "TIFF" and read_orientation(opened) >= 5:
        opened.image.filename = ""  # else Pillow 13 maps raw grey into memory with width and height exchanged

    def load() -> None:
        with _quiet() if opened.format == "TIFF" else contextlib.nullcontext(), _without_bomb_check(opened.image.size):
            opened.image.load()

    guarded(opened.path, load)
    if opened.format == "PNG":
        declared = opened.image, opened.file, opened.bits, opened.samples
        if fault := guarded(opened.path, lambda: fault_of_png(*declared)):
            raise DataError(f"{shown(opened.path)}: {fault}")
    return opened.image


def read_orientation(opened: Opened) -> int:
    """Returns the EXIF orientation, 1 to 8.

    1 where there is none, it is none of these or the block is broken: so do viewers, and their view is the one that a
    mask was drawn on. Raises DataError where the pixels have to be decoded to get at it and cannot be.
    """
    if opened.format == "PNG":
        if not guarded(opened.path, lambda: _png_has_exif(opened)):
            return 1
        load_pixels(opened)  # the block may stand behind them
    try:
        with _quiet(), _without_bomb_check(opened.image.size):
            value = opened.image.getexif().get(_ORIENTATION, 1)
    except Exception:  # whatever Pillow's parser meets in broken metadata; it has no class of its own
        return 1
    return int(value) if value in range(1, 9) else 1


def _silence_libraries() -> None:
    """Keeps what libtiff and Pillow print of broken files off standard error; the reader raises a DataError for them.

    libtiff writes to the descriptor itself. Its handlers are found through the library that Pillow links to, where
    that exports them.
    """
    logging.getLogger("PIL").addHandler(logging.NullHandler())
    for name in ("TIFFSetErrorHandler", "TIFFSetWarningHandler"):
        with contextlib.suppress(AttributeError, OSError):
            set_handler = getattr(ctypes.CDLL(Image.core.__file__), name)
            set_handler.argtypes, set_handler.restype = [ctypes.c_void_p], ctypes.c_void_p
            set_handler(None)


_silence_libraries()


def guarded(path: Path, decode: Callable[[], Any]) -> Any:
    """Returns what `decode` does. Whatever a decoder raises on hostile bytes is a DataError that names the file."""
    try:
        return decode()
    except DataError:
        raise
    except MemoryError as error:
        raise DataError(f"{shown(path)}: not enough memory to decode it; lower limits.max_pixels") from error
    except Exception as error:
        reason = shown(" ".join(str(error).split())[:200]) or type(error).__name__
        raise DataError(
            f"{shown(path)}: cannot be decoded, it is truncated or corrupt ({reason}); copy or export it again"
        ) from error


def sample_format(opened: Opened) -> int:
    """Returns the SampleFormat of a TIFF: 1 unsigned, 2 signed, 3 float; 1 for all else."""
    return tiff_tag(opened.image, TiffImagePlugin.SAMPLEFORMAT, 1) if opened.format == "TIFF" else 1


def photometric(opened: Opened) -> int:
    """Returns the PhotometricInterpretation of a TIFF (0 is WhiteIsZero); -1 for all else."""
    if opened.format != "TIFF":
        return -1
    return tiff_tag(opened.image, TiffImagePlugin.PHOTOMETRIC_INTERPRETATION, -1)


def _open_file(path: Path) -> BinaryIO:
    remedy = "expected an image file"
    try:
        status = os.stat(path)
        if stat.S_ISDIR(status.st_mode):
            raise DataError(f"{shown(path)}: is a folder, {remedy}; move it away or rename it")
        if not stat.S_ISREG(status.st_mode):
            raise DataError(f"{shown(path)}: is no regular file, {remedy}; remove it")
        if status.st_size == 0:
            raise DataError(f"{shown(path)}: is empty (0 bytes), {remedy}; copy it again or remove it")
        return open(path, "rb")
    except FileNotFoundError as error:
        what = "is a link to a file that is not there" if path.is_symlink() else "no such file"
        raise DataError(f"{shown(path)}: {what}; restore it or remove it") from error
    except (OSError, ValueError) as error:
        reason = getattr(error, "strerror", None) or error
        raise DataError(f"{shown(path)}: cannot be opened ({reason}); make the file readable") from error


def _sniff(path: Path, head: bytes, formats: Collection[str]) -> str:
    found = next((name for magic, name in _SIGNATURES if head.startswith(magic)), "")
    if head[:4] == b"RIFF" and head[8:12] == b"WEBP":
        found = "WebP"
    elif head[4:8] == b"ftyp":
        found = "HEIF, AVIF or video"
    if found in formats:
        return found
    text = head.lstrip(b"\xef\xbb\xbf \t\r\n").lower()
    if text.startswith((b"<!doctype html", b"<html")):
        found = "a web page, perhaps a failed download"
    elif text.startswith(b"version https://git-lfs"):
        found = "a pointer of Git LFS: `git lfs pull` puts the file in its place"
    expected = f"{', '.join(list(formats)[:-1])} or {list(formats)[-1]}"
    what = f"found {found}" if found else f"it begins with {head[:8]!r}"
    raise DataError(f"{shown(path)}: not {expected} ({what}); convert it, or fetch it again, or remove it")


def _construct(format_: str, file: BinaryIO, path: Path) -> ImageFile:
    with _quiet(), _without_bomb_check(None) if format_ == "WebP" else contextlib.nullcontext():
        return _PLUGINS[format_](file, str(path))


def _guard_pixels(path: Path, size: tuple[int, int], max_pixels: int, samples: int = 1) -> None:
    width, height = size
    count = width * height * max(1, -(-samples // SAMPLES_A_PIXEL))
    if count > max_pixels:
        many = f" of {samples:,} samples, which count as {count:,}" if count > width * height else ""
        raise DataError(
            f"{shown(path)}: {width} x {height} = {width * height:,} pixels{many}, but limits.max_pixels is "
            f"{max_pixels:,}; cut the image into parts, or raise limits.max_pixels"
        )


def _guard_frames(path: Path, image: ImageFile) -> None:
    # Pillow counts the frames of TIFF and GIF by walking through them: do that only for the message.
    if guarded(path, lambda: getattr(image, "is_animated", False)):
        count = guarded(path, lambda: getattr(image, "n_frames", 2))
        raise DataError(f"{shown(path)}: holds {count} frames (pages), expected one; save each as a file of its own")


def _guard_declared(path: Path, format_: str, image: ImageFile, file: BinaryIO) -> None:
    fault = None
    if format_ == "TIFF":
        fault = guarded(path, lambda: fault_of_tiff(image))
    elif isinstance(image, JpegImagePlugin.JpegImageFile):
        fault = guarded(path, lambda: fault_of_jpeg(image, file))
    if fault:
        raise DataError(f"{shown(path)}: {fault}")


def _sample_layout(format_: str, image: ImageFile, head: bytes) -> tuple[int, int]:
    """Returns bits a sample and samples a pixel, as stored."""
    if format_ == "PNG":
        return head[24], {0: 1, 2: 3, 3: 1, 4: 2, 6: 4}.get(head[25], 0)
    if format_ == "TIFF":
        bits = tiff_tag(image, TiffImagePlugin.BITSPERSAMPLE, 1)
        return bits, tiff_tag(image, TiffImagePlugin.SAMPLESPERPIXEL, 1)
    return (1 if image.mode == "1" else 8), len(image.getbands())


def _png_has_exif(opened: Opened) -> bool:
    """Whether there is anything that may hold an orientation, without decoding a pixel.

    The headers of the chunks are walked, as an eXIf chunk may stand behind the pixels.
    """
    if {"exif", "Raw profile type exif", "XML:com.adobe.xmp"} & set(opened.image.info):
        return True
    file, place = opened.file, opened.file.tell()  # Pillow reads on from there
    file.seek(8)
    found = False
    while not found and len(header := file.read(8)) == 8 and header[4:] != b"IEND":
        found = header[4:] == b"eXIf"
        file.seek(int.from_bytes(header[:4], "big") + 4, 1)
    file.seek(place)
    return found


@contextlib.contextmanager
def _quiet() -> Generator[None]:
    """Keeps Pillow's warnings about odd metadata to itself; under a lock, as warning filters are global."""
    with _lock, warnings.catch_warnings():
        warnings.simplefilter("ignore")
        yield


@contextlib.contextmanager
def _without_bomb_check(size: tuple[int, int] | None) -> Generator[None]:
    """Lifts Pillow's own limit where ours, already checked, allows more; a global of Pillow, so under the lock."""
    limit = Image.MAX_IMAGE_PIXELS
    if size is not None and (limit is None or size[0] * size[1] <= limit):
        yield
        return
    with _lock:
        saved, Image.MAX_IMAGE_PIXELS = Image.MAX_IMAGE_PIXELS, None
        try:
            yield
        finally:
            Image.MAX_IMAGE_PIXELS = saved
