"""The files of a checkpoint as bytes, and the manifest with their sizes and sha256 sums.

They are compared with it before anything looks at them; what they hold is for `checkpoint` to say.
"""

from __future__ import annotations

import hashlib
import json
from collections.abc import Mapping
from pathlib import Path
from typing import Any

from segtool.errors import CheckpointError

FORMAT = 1
MANIFEST = "manifest.json"
REQUIRED = ("model.safetensors", "optimizer.safetensors", "config.yaml", "state.json")
FILES = (*REQUIRED, "ema.safetensors")
MAX_JSON = 1 << 20  # bytes; ours have about a thousand
OTHER = "use another checkpoint of the run"


class NewerFormatError(CheckpointError):
    """A checkpoint that a newer segtool wrote: not damaged, so no other takes its place."""


def with_manifest(files: Mapping[str, bytes]) -> dict[str, bytes]:
    """Returns the files of a checkpoint, by name, and behind them the manifest that lists them."""
    sums = {name: {"size": len(data), "sha256": hashlib.sha256(data).hexdigest()} for name, data in files.items()}
    return {**files, MANIFEST: dump_json({"format": FORMAT, "files": sums})}


def dump_json(value: Any) -> bytes:
    """Returns plain data as `json_object` reads it."""
    return (json.dumps(value, indent=1, allow_nan=False) + "\n").encode()


def verified(path: Path) -> dict[str, bytes]:
    """Returns the content of each file that the manifest in a directory lists.

    Raises:
        CheckpointError: there is no manifest, it lacks a file or lists one of another name, or a file is not what it
            says.
        NewerFormatError: a newer segtool wrote it.
    """
    if not (path / MANIFEST).is_file():
        raise CheckpointError(
            f"{path}: has no {MANIFEST}, so nothing can be verified by sha256; it is no whole checkpoint: {OTHER}"
        )
    entries = _entries(path)
    contents = {name: _verified_file(path / name, entry) for name, entry in entries.items()}
    if missing := [name for name in REQUIRED if name not in contents]:
        raise CheckpointError(
            f"{path / MANIFEST}: lists no {', '.join(missing)} with its sha256, as a training writes; {OTHER}"
        )
    return contents


def verified_file(path: Path, name: str) -> bytes:
    """Returns the content of one file of the checkpoint in a directory; raises as `verified`."""
    return _verified_file(path / name, _entries(path).get(name, {}))


def json_object(path: Path, name: str, content: bytes) -> dict[str, Any]:
    """Returns the JSON object in a file of the checkpoint at `path`; raises as `verified`."""
    file = path / name
    if len(content) > MAX_JSON:
        raise CheckpointError(f"{file}: {len(content):,} bytes; the sha256 manifest or state is damaged: {OTHER}")
    try:
        value = json.loads(content)
    except (ValueError, RecursionError) as error:
        raise CheckpointError(f"{file}: not JSON; the sha256 manifest or state is damaged: {OTHER}") from error
    if not isinstance(value, dict):
        raise CheckpointError(f"{file}: not a JSON object; the sha256 manifest or state is damaged: {OTHER}")
    _require_format(path, value.get("format"))
    return value


def _require_format(path: Path, found: Any) -> None:
    if type(found) is int and found > FORMAT:
        raise NewerFormatError(
            f"{path}: checkpoint format {found}, but this segtool reads up to {FORMAT}; upgrade segtool"
        )
    if type(found) is not int or found < 1:
        raise CheckpointError(
            f"{path}: checkpoint format {repr(found)[:20]}; expected a whole number from 1 to {FORMAT}: the manifest "
            f"or state is damaged, or was not written by segtool; {OTHER}"
        )


def _entries(path: Path) -> dict[str, dict[str, Any]]:
    """Returns what the manifest says of each file, by name. No other name is ever made a path of."""
    manifest = json_object(path, MANIFEST, _read(path / MANIFEST))
    files = manifest.get("files")
    if not isinstance(files, dict):
        raise CheckpointError(f"{path / MANIFEST}: lists no files with their sha256; it is damaged: {OTHER}")
    for name, entry in files.items():
        if name not in FILES or not isinstance(entry, dict):
            raise CheckpointError(
                f"{path / MANIFEST}: lists {name[:80]!r}, no file of a checkpoint (sha256 not checked); {OTHER}"
            )
    return files


def _verified_file(path: Path, entry: Mapping[str, Any]) -> bytes:
    content = _read(path, size=entry.get("size"))
    if len(content) != entry.get("size") or hashlib.sha256(content).hexdigest() != entry.get("sha256"):
        raise CheckpointError(
            f"{path}: {len(content)} bytes whose sha256 is not the one in {MANIFEST} ({entry.get('size')} bytes); "
            f"the file is damaged: {OTHER}"
        )
    return content


def _read(path: Path, *, size: Any = None) -> bytes:
    """Returns what is in a file of `size` bytes, else of at most `MAX_JSON`; no other is read."""
    try:
        if path.exists() and not path.is_file():
            raise CheckpointError(f"{path}: is no regular file, so its sha256 cannot be verified; {OTHER}")
        found = path.stat().st_size
        if size is None and found > MAX_JSON:
            raise CheckpointError(f"{path}: {found:,} bytes; the sha256 manifest or state is damaged; {OTHER}")
        if size is not None and found != size:
            raise CheckpointError(
                f"{path}: {found} bytes, whose sha256 cannot be the one in {MANIFEST} ({repr(size)[:20]} bytes); the "
                f"file is damaged: {OTHER}"
            )
        return path.read_bytes()
    except (OSError, MemoryError) as error:
        reason = getattr(error, "strerror", None) or "no memory for so large a file"
        raise CheckpointError(
            f"{path}: cannot be read ({reason}), so its sha256 cannot be verified; {OTHER}"
        ) from error
