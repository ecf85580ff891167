"""Causal attention of the rows of several sequences over their cached keys and values."""
