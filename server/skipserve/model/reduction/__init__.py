"""Chooses among the rows of pictures before the decoder sees them."""
