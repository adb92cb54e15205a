"""A curve: medians over what a scenario goes over, with their spread."""

from atomo_gql.cli.bench.figures import is_met, number
from atomo_gql.cli.bench.svg import Drawing, extent, group, line, text, ticks, whisker
from atomo_gql.cli.bench.told import Outcome

_HEIGHT = 280
_TOP = 30


def curve(outcome: Outcome, width: float) -> Drawing:
    """Evenly spaced, as the xs grow by factors or by equal steps."""
    measures = [m for m in outcome["measures"] if m["x"] is not None]
    marks = ticks(max(max(m["values"]) for m in measures) * 1.04)
    left = max(extent(f"{mark:,.10g}") for mark in marks) + 12
    step = (width - left - 70) / max(1, len(measures) - 1)
    xs = [left + 35 + place * step for place in range(len(measures))]

    def y(value: float) -> float:
        return _HEIGHT - (_HEIGHT - _TOP) * value / marks[-1]

    shapes = text(left, 12, measures[0]["unit"])
    for mark in marks:
        shapes += line(left, y(mark), width, y(mark), "grid")
        shapes += text(left - 10, y(mark) + 4, f"{mark:,.10g}", "", "end")
    shapes += text((left + width) / 2, _HEIGHT + 44, outcome["x"] or "", "", "middle")
    path = " ".join(f"{x:.1f},{y(m['value']):.1f}" for x, m in zip(xs, measures, strict=True))
    shapes += f'<polygon points="{xs[0]:.1f},{_HEIGHT} {path} {xs[-1]:.1f},{_HEIGHT}" class="under"/>'
    shapes += f'<polyline points="{path}" class="curve"/>'

    values, places = [number(m["value"]) for m in measures], [f"{m['x'] or 0:,.10g}" for m in measures]
    valued, placed = _apart(values, step), _apart(places, step)
    heights = [y(m["value"]) for m in measures]
    for at, (x, m) in enumerate(zip(xs, measures, strict=True)):
        most = y(max(m["values"]))
        kind = "missed" if is_met(m) is False else "bar"
        dot = f'<circle cx="{x:.1f}" cy="{heights[at]:.1f}" r="5" class="{kind} dot"/>'
        top = min(most, _beside(heights, at, extent(values[at], 13) / 2 / (step or 1))) - 10
        shown = [text(x, top, values[at], "figure halo", "middle")] if at in valued else []
        shown += [text(x, _HEIGHT + 20, places[at], "", "middle")] if at in placed else []
        shapes += group(f"{m['name']}: {values[at]} {m['unit']}", whisker(x, y(min(m["values"])), x, most), dot, *shown)

    signs = ["missed"] if any(is_met(m) is False for m in measures) else []
    signs += ["spread"] if any(min(m["values"]) < max(m["values"]) for m in measures) else []
    return Drawing(shapes, _HEIGHT + 50, "", signs)


def _beside(heights: list[float], at: int, part: float) -> float:
    """How high the curve goes within this part of a step beside a point, so that its label stands above it."""
    here = heights[at]
    return min(here + (there - here) * min(part, 1) for there in heights[max(0, at - 1) : at + 2])


def _apart(words: list[str], step: float) -> set[int]:
    """Which of the words have room beside each other: every one, or every second, and so on; the last always."""
    room = max(extent(each, 13) for each in words) + 12
    every = max(1, -int(-room // step)) if step else 1
    return set(range(len(words) - 1, -1, -every))
