"""Makes all tables of quality for a model of one's own, on published data sets, at once."""
