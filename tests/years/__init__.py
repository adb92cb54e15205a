"""Years of days on a clock that the tests move: `python -m tests.years` by hand, and a few days as a test."""
