"""Tasks with verifiable rewards. Pure Python: nothing here imports torch."""
