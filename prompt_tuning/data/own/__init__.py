"""A user's files as tasks and as inputs."""
