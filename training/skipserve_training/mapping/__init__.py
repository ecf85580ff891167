"""The mapping module: a small trained part that joins a frozen encoder to a frozen LLM."""
