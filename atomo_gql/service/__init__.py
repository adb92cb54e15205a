"""Verbs: each takes who is calling and what they want, authorises it, and owns the transaction."""
