"""HeteroMARK: heterogeneous multi-agent reinforcement learning as one reproducible workflow.

Importing this package, `heteromark.config` or `heteromark.runs` imports no torch.
"""

__version__ = "0.1.0"
