"""The LLaVA model: configuration, weights, vision tower, decoder. Knows no request."""
