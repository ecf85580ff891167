"""A matrix product with packed weights, alone or added to a residual."""
