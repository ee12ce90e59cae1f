"""What a trained model is used for: prediction, evaluation, streams, export, pictures, the demo page."""
