"""Components, the loop, checkpoints and evaluation of one run. Importing it imports no torch."""
