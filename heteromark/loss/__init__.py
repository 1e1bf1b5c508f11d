"""Loss modules that TorchRL does not have. Importing it imports no torch."""
