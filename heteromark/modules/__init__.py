"""One factory per kind of component, each with a registry. Does not import torch."""
