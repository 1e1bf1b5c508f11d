"""`heteromark doctor`: what goes wrong around the training, and the command that mends it."""
