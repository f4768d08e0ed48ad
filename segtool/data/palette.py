"""Colours for classes that name none, told apart by people with any kind of colour vision.

The first seven are those of Okabe and Ito ("Color Universal Design", 2008) without black, which vanishes in overlays;
the rest are the muted, light and bright schemes of Paul Tol ("Colour Schemes", SRON technical note, 2021) as far as
they differ from what stands before them.
"""

from __future__ import annotations

COLORS: tuple[tuple[int, int, int], ...] = (
    (230, 159, 0),
    (86, 180, 233),
    (0, 158, 115),
    (240, 228, 66),
    (0, 114, 178),
    (213, 94, 0),
    (204, 121, 167),
    (136, 34, 85),
    (17, 119, 51),
    (51, 34, 136),
    (221, 204, 119),
    (68, 170, 153),
    (204, 102, 119),
    (153, 153, 51),
    (170, 68, 153),
    (136, 204, 238),
    (119, 170, 221),
    (238, 136, 102),
    (187, 204, 51),
    (255, 170, 187),
    (153, 221, 255),
    (170, 170, 0),
    (102, 102, 102),
    (221, 221, 221),
)


def color(index: int) -> tuple[int, int, int]:
    """Returns the colour of class `index`; from the second round on each is darker than in the round before."""
    turn, place = divmod(index, len(COLORS))
    red, green, blue = (round(value * 0.75**turn) for value in COLORS[place])
    return red, green, blue
