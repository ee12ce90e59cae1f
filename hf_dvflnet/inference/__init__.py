"""Uses of a trained model: prediction, evaluation, streams, export, pictures of modulation maps and the demo page."""
