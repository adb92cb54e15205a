"""Nouns and laws of workflows: what a definition may say, and how a run takes its steps."""
