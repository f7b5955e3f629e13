"""Upper floor A: from a store of unlabeled images to weights with a card."""
