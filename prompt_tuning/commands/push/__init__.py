"""Put a run's prompt, or what its method added, on the Hugging Face hub."""
