"""GPUs, and which language models fit into them."""
