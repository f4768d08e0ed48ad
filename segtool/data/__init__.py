"""From files to class indices and back: pairing, the one image reader, the one mask reader, and the checks.

`formats`, `images` and `labels` need numpy and Pillow only, so that a data set can be looked at without torch.
"""
