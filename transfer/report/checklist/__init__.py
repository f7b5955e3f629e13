"""Reporting checklists (CLAIM 2024, TRIPOD+AI), filled with what records, tasks, stores and cards state."""
