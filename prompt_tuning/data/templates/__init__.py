"""Templates: tasks written in natural language, several ways each, and how a model does over all of them."""
