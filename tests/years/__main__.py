"""`python -m tests.years`: 400 days with a retention, 400 days kept for ever, and five years of days."""

import argparse
import asyncio
import sys

from .five_years import DAYS, five_years
from .four_hundred_days import Kept, four_hundred_days

RETENTION = Kept(succeeded=30, dead=90, recorded=60)


def main() -> None:
    """Run what is asked for."""
    parser = argparse.ArgumentParser(prog="python -m tests.years", description=__doc__)
    parser.add_argument("what", choices=["retention", "for-ever", "five-years"], nargs="*")
    parser.add_argument("--days", type=int, help="fewer days than 400, or than 1,825")
    parser.add_argument("--samples", type=int, default=200, help="of each look, on each side")
    asked = parser.parse_args()
    is_well = True
    for what in asked.what or ["retention", "for-ever", "five-years"]:
        if what == "five-years":
            asyncio.run(five_years(asked.days or DAYS))
        else:
            kept = RETENTION if what == "retention" else Kept()
            is_well &= asyncio.run(four_hundred_days(asked.days or 400, kept, asked.samples))
    sys.exit(0 if is_well else 1)


if __name__ == "__main__":
    main()
