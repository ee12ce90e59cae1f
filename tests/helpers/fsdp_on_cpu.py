"""
Turns on FSDP for processes on the CPU. As a script, it runs another one so: `python fsdp_on_cpu.py SCRIPT ARGUMENTS`.

accelerate applies FSDP on GPUs and other accelerators alone (`AcceleratorState.__init__`), although PyTorch's FSDP2
runs on the CPU too, over gloo. This takes the same branch there, so that all else, from the wrapping of the model to
the checkpoints, is accelerate's and transformers' own.
"""

import runpy
import sys
from pathlib import Path

from accelerate.state import AcceleratorState, PartialState
from accelerate.utils import DistributedType


_original = AcceleratorState.__init__


def _with_fsdp(self, *args, fsdp_plugin=None, **kwargs):
    _original(self, *args, fsdp_plugin=fsdp_plugin, **kwargs)
    if fsdp_plugin is not None and self.distributed_type == DistributedType.MULTI_CPU:
        self.fsdp_plugin = fsdp_plugin
        self.distributed_type = PartialState._shared_state["distributed_type"] = DistributedType.FSDP


AcceleratorState.__init__ = _with_fsdp  # type: ignore[method-assign]

if __name__ == "__main__":
    sys.argv.pop(0)
    sys.path[0] = str(Path(sys.argv[0]).parent)
    runpy.run_path(sys.argv[0], run_name="__main__")
