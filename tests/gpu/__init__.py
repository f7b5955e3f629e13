"""Checks of every path that a GPU takes, and of its speed; see `python -m tests.gpu --help` and docs/performance.md."""
