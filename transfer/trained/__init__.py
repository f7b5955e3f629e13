"""Networks that were fine-tuned on a task and kept: training them, and predicting with them."""
