"""Entry point of `python -m dvflnet_cli`, which `accelerate launch -m` needs."""

from dvflnet_cli import main


if __name__ == "__main__":
    main()
