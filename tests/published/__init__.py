"""Miniatures of published data sets and exports: folders, names, modes and encodings as they are handed out.

Each function of the modules writes one set. What `init` should make of it stands in its decorator: the pairs of each
split (`train` alone where the set has no split of its own), the encoding, the stored codes of the classes, what is
ignored.
"""

from published import archives as archives
from published import bodies as bodies
from published import exports as exports
from published import folders as folders
from published import from_above as from_above
from published import handed_out as handed_out
from published import legends as legends
from published import nested as nested
from published import no_masks as no_masks
from published import scans as scans
from published import spread as spread
from published import storage as storage
from published import streets as streets
from published import things as things
from published import tutorials as tutorials
from published import unnamed as unnamed
from published import ways as ways
from published.registry import PUBLISHED as PUBLISHED
from published.registry import UNSUPPORTED as UNSUPPORTED
from published.registry import Published as Published
