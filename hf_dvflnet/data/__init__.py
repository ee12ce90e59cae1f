"""Video data sets for training and evaluation: loading, preparing, verifying and augmenting videos."""
