"""
Run `dvflnet evaluate` on several processes:

    accelerate launch examples/evaluate_checkpoint.py MODEL --dataset ucf101 --data-dir DIR --views 12

The arguments are those of `dvflnet evaluate`. (The script is not called evaluate.py, because that name would hide the
`evaluate` library.)
"""

import sys

import dvflnet_cli


if __name__ == "__main__":
    sys.argv[:1] = ["dvflnet", "evaluate"]
    dvflnet_cli.main()
