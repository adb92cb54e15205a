"""Nouns and laws: what a job, an event, a caller is, and what may be said of them. Pure: no I/O, no third party."""
