"""
Writes, reads, describes and pushes model folders, and converts published checkpoints.

Imported before transformers, to keep two remarks off the terminal: where torchao is installed (executorch asks for
it), transformers imports it, and torch then logs advice on torchao's own source code.
"""

import logging


logging.getLogger("torch.utils._pytree").addFilter(lambda record: "register_constant" not in record.getMessage())
