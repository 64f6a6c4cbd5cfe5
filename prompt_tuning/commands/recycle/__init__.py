"""Map a prompt of one model into another of the same vocabulary, by what their embeddings have in common."""
