"""What a figure was measured on, kept beside it."""

import json
import platform
import sys
from importlib.metadata import version
from pathlib import Path

import torch


def machine() -> dict[str, str | int]:
    """Processor and its vector units, threads that torch uses, GPU if there is one, versions, and the command."""
    models = [
        line.partition(":")[2].strip()
        for line in Path("/proc/cpuinfo").read_text().splitlines()
        if line.startswith("model name")
    ]
    return {
        "processor": f"{models[0] if models else platform.processor()} ({torch.backends.cpu.get_cpu_capability()})",
        "cores": len(models),
        "threads": torch.get_num_threads(),
        "gpu": torch.cuda.get_device_name() if torch.cuda.is_available() else "none",
        **{name: version(name) for name in ("torch", "transformers", "av")},
        "command": " ".join(["python", "benchmarks/" + Path(sys.argv[0]).name, *map(without_place, sys.argv[1:])]),
    }


def continued(output: Path) -> dict:
    """What an earlier, stopped run of this benchmark measured here, or nothing yet but where it runs."""
    here = machine() | {"command": f"python benchmarks/{Path(sys.argv[0]).name}"}  # as its options change no figure
    found = json.loads(output.read_text()) if output.exists() else {"machine": here}
    if found["machine"] != here:
        raise SystemExit(f"{output}: was begun on another machine or with other versions; move it away")
    return found


def without_place(word: str) -> str:
    """An argument without the folders that it lies in, where these are of one machine: outside of the repository."""
    return Path(word).name if word.startswith(("/", "../")) else word
