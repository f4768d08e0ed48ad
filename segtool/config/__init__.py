"""The config: its sections as frozen dataclasses, how it is read and checked, and what it may name.

`Config` and the functions that read and write one are imported from here; all else from its module.
"""

from segtool.config.loading import dump_config, load_config, located, parse_config, parse_text, show
from segtool.config.sections import (
    Augment,
    ClassSpec,
    Config,
    Data,
    Folders,
    Limits,
    LossTerm,
    Model,
    Optim,
    Pairing,
    Split,
    Train,
    plain,
)
