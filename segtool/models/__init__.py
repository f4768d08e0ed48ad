"""Networks: an encoder makes feature maps, a decoder brings them back to the image's size, a head makes logits.

`segtool.models.segmenter.build_model` builds one from a config. This file imports nothing, so that naming the package
costs nothing.

Letters of shapes, in every comment and docstring below:

    N  images in a batch        C  channels        K  classes
    H  W  pixels of the image   h  w  pixels of a map, H/s and W/s at stride s
"""
