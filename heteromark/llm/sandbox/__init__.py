"""A sandbox for untrusted programs, such as those written by language models.

`run_program` runs a program in the sandbox. `isolation` returns which protections this machine
supports. The package imports only the standard library.
"""

from heteromark.llm.sandbox.run import Finished, Isolation, SandboxError, isolation, run_program

__all__ = ["Finished", "Isolation", "SandboxError", "isolation", "run_program"]
