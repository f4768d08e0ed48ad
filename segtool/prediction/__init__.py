"""From a checkpoint to masks: how a network is used on an image of any size, and what `predict` writes."""
