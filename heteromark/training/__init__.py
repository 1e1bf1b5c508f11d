"""Components, training loop, checkpoints and evaluation of one run. Does not import torch."""
