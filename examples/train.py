"""
`dvflnet train` as a script:

    accelerate launch examples/train.py --config examples/recipes/student.yaml \\
        --config examples/recipes/ucf101.yaml \\
        --data_dir UCF101 --output_dir runs/ucf101

The options are those of the command.
"""

import sys

import dvflnet_cli


if __name__ == "__main__":
    sys.argv[:1] = ["dvflnet", "train"]
    dvflnet_cli.main()
