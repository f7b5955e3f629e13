"""Upper floor B: from an encoder and a labeled store to numbers one may believe."""
