"""Self-supervised pretraining: from a store of unlabeled images to an encoder with a card."""
