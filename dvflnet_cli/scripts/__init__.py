"""What `dvflnet train` and `dvflnet distill` run. Imported by these commands alone, since it loads torch at once."""
