"""Root mean square normalisation of chosen rows, under up to three gains."""
