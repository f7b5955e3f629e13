"""The HTML report: one page from records that opens from disk without a network and names no patient."""
