"""What `make bench` and the pages on speed and memory measure."""
