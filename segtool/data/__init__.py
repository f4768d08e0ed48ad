"""From files to class indices and back: pairing, the one image reader, the one mask reader, facts, and batches.

`formats`, `images`, `labels` and `facts` need numpy and Pillow only, so that a data set can be looked at without torch.
"""
