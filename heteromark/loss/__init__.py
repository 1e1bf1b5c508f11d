"""Loss modules that TorchRL does not have. Does not import torch."""
