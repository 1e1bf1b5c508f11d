"""Environments with the SMAC API."""

import os

# StarCraft II's messages (s2clientprotocol) are in a form that protobuf 4 and later reads only in
# its Python implementation. Set before anything imports protobuf.
os.environ.setdefault("PROTOCOL_BUFFERS_PYTHON_IMPLEMENTATION", "python")
