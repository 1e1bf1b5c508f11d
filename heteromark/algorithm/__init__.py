"""Algorithms: update the weights from a batch. Does not import torch."""
