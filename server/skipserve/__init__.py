"""skipserve: a server for multimodal LLMs in which each request chooses what is computed."""
