"""Many runs from one file: expands a sweep into cells, runs what is missing, and keeps a row a cell."""
