"""The predictor: the label from what is observed and what was reconstructed."""
