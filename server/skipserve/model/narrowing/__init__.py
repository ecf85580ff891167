"""Rows of a prompt that leave a forward between two of its layers."""
