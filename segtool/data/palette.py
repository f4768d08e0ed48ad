"""Colours for classes that name none, told apart by people with any kind of colour vision.

The first seven are those of Okabe and Ito ("Color Universal Design", 2008) without black, which vanishes in overlays;
the rest are the muted, light and bright schemes of Paul Tol ("Colour Schemes", SRON technical note, 2021) as far as
they differ from what stands before them.
"""

from __future__ import annotations

_OKABE_ITO = "e69f00 56b4e9 009e73 f0e442 0072b2 d55e00 cc79a7"
_TOL = (
    "882255 117733 332288 ddcc77 44aa99 cc6677 999933 aa4499 88ccee 77aadd ee8866 bbcc33 "
    "ffaabb 99ddff aaaa00 666666 dddddd"
)
COLORS = [tuple(bytes.fromhex(code)) for code in (*_OKABE_ITO.split(), *_TOL.split())]


def color(index: int) -> tuple[int, int, int]:
    """Returns the colour of class `index`; from the second round on each is darker than in the round before."""
    turn, place = divmod(index, len(COLORS))
    red, green, blue = (round(value * 0.75**turn) for value in COLORS[place])
    return red, green, blue
