"""The demo model: a small LLaVA, trained from nothing on generated pictures of shapes."""
