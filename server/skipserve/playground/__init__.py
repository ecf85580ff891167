"""A page for browsers, which asks this server through its public routes alone."""
