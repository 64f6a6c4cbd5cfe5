"""Published data sets: their original files, their texts and their averages."""
