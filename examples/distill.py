"""
`dvflnet distill` as a script, here on videos that it renders itself, as `make demo` does:

    accelerate launch examples/distill.py --config examples/demo.yaml

The options are those of the command.
"""

import sys

import dvflnet_cli


if __name__ == "__main__":
    sys.argv[:1] = ["dvflnet", "distill"]
    dvflnet_cli.main()
