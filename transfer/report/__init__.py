"""The report: records as one HTML page that opens from disk, asks no network, and names no patient."""
