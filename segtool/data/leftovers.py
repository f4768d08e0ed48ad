"""What of a data set no split uses, in the notes of its layout."""

from __future__ import annotations

from collections.abc import Iterator, Sequence

from segtool.data.folders import Place, Tree, looks_like_masks, within


def unused_masks(tree: Tree, used: Sequence[Place]) -> Iterator[str]:
    """Yields the folders with pictures whose own name has a word for masks and that no split uses."""
    masks = sorted((place for place in tree.places if place.role == "masks"), key=lambda place: -len(place.path))
    told: set[str] = set()
    for folder in sorted(tree.files):
        place = next((place for place in masks if _covers(place, folder)), None)
        if place and not any(_covers(other, folder) or within(other.path, place.path) for other in used):
            told.add(place.shown)
    yield from sorted(told)


def unlabelled_images(tree: Tree, used: Sequence[Place]) -> list[str]:
    """Returns a note for each folder of images in a place of its own that no split uses."""
    paths = [place.path for place in used]
    spare = [
        place.path
        for place in tree.places
        if place.role != "masks" and not any(within(place.path, p) or within(p, place.path) for p in paths)
    ]
    innermost = [path for path in spare if not any(path != other and within(other, path) for other in spare)]
    counts = {path: sum(len(files) for d, files in tree.files.items() if within(d, path)) for path in innermost}
    return [
        f"{path}: {count} images without masks, left out"
        for path, count in counts.items()
        if not looks_like_masks(path)
    ]


def _covers(place: Place, folder: str) -> bool:
    return within(folder, place.path) and (not place.inner or place.inner in folder.split("/"))
