"""One question under several policies, side by side."""
