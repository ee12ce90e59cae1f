"""
`dvflnet train` as a script:

    accelerate launch examples/train.py --recipe published --dataset ucf101 --data_dir UCF101 --output_dir runs/ucf101

The options are those of the command.
"""

import sys

import dvflnet_cli


if __name__ == "__main__":
    sys.argv[:1] = ["dvflnet", "train"]
    dvflnet_cli.main()
