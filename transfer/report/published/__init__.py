"""Published results on official splits: shown beside one's own, and never compared with them."""
