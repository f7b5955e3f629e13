"""Heat maps that explain the predictions of a trained encoder, and measurements of how faithful they are."""
