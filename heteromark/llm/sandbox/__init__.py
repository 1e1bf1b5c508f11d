"""Runs programs that nobody has read: those that language models write.

`isolation` tells what this machine lets the sandbox contain, `run_program` runs a program in it.
Neither imports anything but the standard library.
"""

from heteromark.llm.sandbox.run import Finished, Isolation, SandboxError, isolation, run_program

__all__ = ["Finished", "Isolation", "SandboxError", "isolation", "run_program"]
