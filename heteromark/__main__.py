"""`python -m heteromark` is the `heteromark` command, with the code of the working directory."""

from heteromark.cli import main

main()
