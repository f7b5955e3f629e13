"""Benchmarks: from an encoder and a labeled store to results with confidence intervals over patients."""
