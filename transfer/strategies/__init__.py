"""Strategies of fine-tuning: what is trained, in which order, and what becomes of the weights."""
