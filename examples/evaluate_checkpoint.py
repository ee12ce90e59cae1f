"""
`dvflnet evaluate` on several processes:

    accelerate launch examples/evaluate_checkpoint.py MODEL --dataset ucf101 --data-dir DIR --views 12

takes the command's arguments. (It is not called evaluate.py, since that would hide the library of this name.)
"""

import sys

import dvflnet_cli


if __name__ == "__main__":
    sys.argv[1:1] = ["evaluate"]
    dvflnet_cli.main()
