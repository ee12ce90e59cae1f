"""Print the dependencies of the package, and of extras given, at their lower bounds, as constraints for pip."""

import configparser
import re
import sys
from pathlib import Path


setup = configparser.ConfigParser()
setup.read(Path(__file__).parents[1] / "setup.cfg", encoding="utf-8")
bounds: dict[str, str] = {}
for listed in (
    setup["options"]["install_requires"],
    *(setup.get("options.extras_require", extra) for extra in sys.argv[1:]),
):
    for name, bound in re.findall(r"^([\w.-]+)(?:\[[\w,-]+\])?>=([\d.]+)", listed, flags=re.MULTILINE):
        # what an extra asks for beyond the package itself counts
        parts = [[int(part) for part in version.split(".")] for version in (bound, bounds.get(name, "0"))]
        bounds[name] = bound if parts[0] > parts[1] else bounds[name]
# a build for the CPU alone (torch 2.13.0+cpu), where an index offers it, does not fit torchvision's published builds
sys.stdout.writelines(f"{name}=={bound},!={bound}+cpu\n" for name, bound in bounds.items())
