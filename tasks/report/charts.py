"""Small charts as inline SVG, without styles of their own: page.css colours them for light and dark."""

from __future__ import annotations

from collections.abc import Callable, Sequence
from dataclasses import dataclass

from markupsafe import Markup

WIDTH, HEIGHT = 320, 110
_TOP, _RIGHT, _BOTTOM, _LEFT = 8, 8, 22, 58  # room for the axes: values on the left, days below


@dataclass(frozen=True)
class Point:
    """One night of a chart.

    Attributes:
        date: what stands below it, on the axis.
        label: what is shown when it is pointed at.
        value: None where there is nothing.
        low: lower end of the band that was expected; None where there was none yet.
        high: its upper end.
        alarm: whether the value fell out of it to the worse side.
    """

    date: str
    label: str
    value: float | None
    low: float | None = None
    high: float | None = None
    alarm: bool = False


def line_chart(title: str, points: Sequence[Point], words: Callable[[float], str]) -> Markup:
    """A line over nights with the band that was expected of each, and a mark where one fell out of it.

    Args:
        title: what it shows.
        points: the nights, the oldest first.
        words: says a value, for the axis.
    """
    numbers = [n for point in points for n in (point.value, point.low, point.high) if n is not None]
    if not numbers:
        return Markup("")
    low, high = min(numbers), max(numbers)
    span = (high - low) or abs(high) or 1.0
    step = (WIDTH - _LEFT - _RIGHT) / max(1, len(points) - 1)

    def x(number: int) -> float:
        return round(_LEFT + number * step, 1)

    def y(value: float) -> float:
        return round(HEIGHT - _BOTTOM - (value - low) / span * (HEIGHT - _TOP - _BOTTOM), 1)

    parts = [_axes(points, [(y(value), words(value)) for value in dict.fromkeys((low, high))])]
    banded = [(number, p.low, p.high) for number, p in enumerate(points) if p.low is not None and p.high is not None]
    if banded:
        upper = [f"{x(number)},{y(top)}" for number, _, top in banded]
        lower = [f"{x(number)},{y(bottom)}" for number, bottom, _ in reversed(banded)]
        parts.append(Markup('<polygon class="band" points="{}"/>').format(" ".join(upper + lower)))
    drawn = [(number, point, point.value) for number, point in enumerate(points) if point.value is not None]
    line = " ".join(f"{x(number)},{y(value)}" for number, _, value in drawn)
    parts.append(Markup('<polyline class="line" points="{}"/>').format(line))
    for number, point, value in drawn:
        dot = Markup('<circle class="{}" cx="{}" cy="{}" r="{}"><title>{}</title></circle>')
        parts.append(
            dot.format("alarm" if point.alarm else "dot", x(number), y(value), 5 if point.alarm else 2.5, point.label)
        )
    frame = Markup('<svg class="chart" viewBox="0 0 {} {}" role="img" aria-label="{}">{}</svg>')
    return frame.format(WIDTH, HEIGHT, title, Markup("").join(parts))


def _axes(points: Sequence[Point], values: Sequence[tuple[float, str]]) -> Markup:
    """The two lines, the least and the largest value, the first and the last day."""
    foot = HEIGHT - _BOTTOM + 4
    parts = [Markup('<path class="axis" d="M{0} {1}V{2}H{3}"/>').format(_LEFT - 6, _TOP, foot, WIDTH - _RIGHT)]
    text = Markup('<text class="tick" x="{}" y="{}" text-anchor="{}">{}</text>')
    parts += [text.format(_LEFT - 10, height + 4, "end", said) for height, said in values]
    parts.append(text.format(_LEFT - 6, HEIGHT - 3, "start", points[0].date))
    if len(points) > 1:
        parts.append(text.format(WIDTH - _RIGHT, HEIGHT - 3, "end", points[-1].date))
    return Markup("").join(parts)


def interval_bar(value: float, low: float | None, high: float | None) -> Markup:
    """A difference and its interval around zero, which is in the middle."""
    if low is None or high is None:
        return Markup("")
    reach = max(abs(low), abs(high), abs(value)) or 1.0

    def x(number: float) -> float:
        return round(80 + 74 * number / reach, 1)

    return Markup(
        '<svg class="interval" viewBox="0 0 160 16" role="img" aria-label="{} to {}">'
        '<line class="zero" x1="80" x2="80" y1="0" y2="16"/><line class="reach" x1="{}" x2="{}" y1="8" y2="8"/>'
        '<circle class="dot" cx="{}" cy="8" r="4"/></svg>'
    ).format(f"{low:.4g}", f"{high:.4g}", x(low), x(high), x(value))
