"""Scripts that made a page of docs."""
