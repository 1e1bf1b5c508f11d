"""`heteromark check-gpu`: the GPUs of a machine and the language models that fit into them."""
