"""Losses of fine-tuning, and what they do about classes of different frequency."""
