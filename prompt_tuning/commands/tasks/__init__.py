"""List, show, measure, check and cache SeqIO tasks."""
