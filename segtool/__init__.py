"""segtool: from a folder of labelled images to a segmentation model that its owner can trust."""

__version__ = "0.1.0"
