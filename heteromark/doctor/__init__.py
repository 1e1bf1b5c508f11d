"""`heteromark doctor`: find problems around the training and print the command that fixes each."""
