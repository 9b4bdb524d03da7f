"""Measures against floors, both sides in the same run: `make bench`."""
