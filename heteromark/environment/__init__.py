"""Adapters from environments to batched TorchRL environments. Importing it imports no torch."""
