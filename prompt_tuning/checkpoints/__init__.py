"""Saving, resuming and importing: whatever a run reads from or leaves on disk as arrays."""
