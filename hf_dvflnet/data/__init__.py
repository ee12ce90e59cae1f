"""Video data sets for training and evaluation: loading, preparing and verifying."""
