"""Data sets: the embedded sample and the IDX format."""
