"""Zeroes weights of a frozen language model, and writes what is left as a checkpoint."""
