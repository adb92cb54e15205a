"""What each hot path costs, in counts that are the same on every machine, held against `baseline.json`."""
