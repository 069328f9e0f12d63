"""Charts as inline SVG whose colours the page's style sets, so that one picture suits light and dark."""

from __future__ import annotations

import math
from collections.abc import Sequence
from dataclasses import dataclass

from edc.reporting.report.markup import Html, element, join

WIDTH, HEIGHT = 440.0, 300.0
LEFT, RIGHT, TOP, BOTTOM = 54.0, 14.0, 10.0, 48.0
COLOURS = 10
MARKS = ("circle", "square", "triangle", "diamond")


@dataclass(frozen=True)
class Point:
    """One measured value.

    Attributes:
        x, y: where it stands.
        spread: standard deviation of y, None where there is one value only.
        about: what a reader is told who points at it.
    """

    x: float
    y: float
    spread: float | None
    about: str


@dataclass(frozen=True)
class Series:
    """Points that belong together, joined by a line.

    Attributes:
        name: in the legend.
        colour: number of a colour of the page.
        mark: number of the points' shape, and of the line's dashes.
        points: in the order of the line.
        band: show the spread as a band along the line instead of bars at the points.
    """

    name: str
    colour: int
    mark: int
    points: Sequence[Point]
    band: bool = False


@dataclass(frozen=True)
class Axis:
    """One axis: what it shows, and its scale."""

    title: str
    logarithmic: bool = False


class Scale:
    """Maps the values of an axis to pixels.

    Args:
        values: all that must fit.
        axis: whose.
        start, end: pixels of the lowest and the highest value.
    """

    def __init__(self, values: Sequence[float], axis: Axis, start: float, end: float) -> None:
        self.axis, self.start, self.end = axis, start, end
        low, high = min(values), max(values)
        if axis.logarithmic:
            low, high = math.log10(low), math.log10(high)
            margin = max(0.06 * (high - low), 0.15)
            self.low, self.high = low - margin, high + margin
        else:
            self.step = step = tick_step(high - low)
            self.low, self.high = math.floor(low / step) * step, math.ceil(high / step) * step
            if self.low == self.high:
                self.low, self.high = self.low - step, self.high + step

    def __call__(self, value: float) -> float:
        """Pixels of a value."""
        at = math.log10(value) if self.axis.logarithmic else value
        return self.start + (at - self.low) / (self.high - self.low) * (self.end - self.start)

    def ticks(self) -> list[tuple[float, str]]:
        """Values that are named on the axis, and how."""
        if not self.axis.logarithmic:
            count = round((self.high - self.low) / self.step)
            return [(value, f"{value:g}") for value in (round(self.low + i * self.step, 9) for i in range(count + 1))]
        decades = range(math.floor(self.low), math.ceil(self.high) + 1)
        parts = (1, 2, 5) if self.high - self.low < 2.2 else (1,)
        values = [part * 10.0**decade for decade in decades for part in parts]
        return [(value, shortened(value)) for value in values if self.low <= math.log10(value) <= self.high]


def tick_step(span: float) -> float:
    """A round step that makes about five parts of a span."""
    raw = (span or 1.0) / 5
    magnitude = 10.0 ** math.floor(math.log10(raw))
    return next(step * magnitude for step in (1, 2, 5, 10) if step * magnitude >= raw * 0.999)


def shortened(value: float) -> str:
    """A number of an axis with k, M or G for its thousands."""
    for limit, unit in ((1e9, "G"), (1e6, "M"), (1e3, "k")):
        if value >= limit:
            return f"{value / limit:g}{unit}"
    return f"{value:g}"


def chart(title: str, horizontal: Axis, vertical: Axis, series: Sequence[Series], note: str = "") -> Html:
    """A figure with its legend and caption; nothing where there is no point."""
    points = [point for one in series for point in one.points]
    if not points:
        return Html("")
    x = Scale([point.x for point in points], horizontal, LEFT, WIDTH - RIGHT)
    ends = [point.y + sign * (point.spread or 0) for point in points for sign in (-1, 1)]
    y = Scale(ends, vertical, HEIGHT - BOTTOM, TOP)
    drawn = [grid(x, y), *(curve(one, x, y) for one in series)]
    about = f"{title}. {vertical.title} against {horizontal.title}: {', '.join(one.name for one in series)}"
    picture = element("svg", *drawn, viewBox=f"0 0 {WIDTH:g} {HEIGHT:g}", role="img", aria_label=about)
    legend = element("ul", *(element("li", swatch(one), one.name) for one in series), class_="legend")
    caption = element("figcaption", element("strong", title), f" {note}" if note else None)
    return element("figure", caption, picture, legend, class_="chart")


def grid(x: Scale, y: Scale) -> Html:
    """Both axes with their ticks and titles."""
    bottom, right = HEIGHT - BOTTOM, WIDTH - RIGHT
    parts = []
    for value, name in y.ticks():
        parts.append(element("line", x1=at(LEFT), x2=at(right), y1=at(y(value)), y2=at(y(value)), class_="rule"))
        parts.append(element("text", name, x=at(LEFT - 6), y=at(y(value) + 5), text_anchor="end"))
    for value, name in x.ticks():
        parts.append(element("line", x1=at(x(value)), x2=at(x(value)), y1=at(bottom), y2=at(bottom + 4), class_="axis"))
        parts.append(element("text", name, x=at(x(value)), y=at(bottom + 19), text_anchor="middle"))
    parts.append(element("line", x1=at(LEFT), x2=at(right), y1=at(bottom), y2=at(bottom), class_="axis"))
    middle = (LEFT + right) / 2
    parts.append(element("text", x.axis.title, x=at(middle), y=at(HEIGHT - 6), text_anchor="middle", class_="title"))
    turned = f"rotate(-90 12 {at((TOP + bottom) / 2)})"
    where = {"x": 12, "y": at((TOP + bottom) / 2), "transform": turned, "text_anchor": "middle"}
    parts.append(element("text", y.axis.title, **where, class_="title"))
    return element("g", *parts, class_="grid")


def curve(series: Series, x: Scale, y: Scale) -> Html:
    """Line, spread and marks of one series."""
    places = [(x(point.x), y(point.y)) for point in series.points]
    parts = []
    if series.band and len(places) > 1:
        sides = [[(x(p.x), y(p.y + sign * (p.spread or 0))) for p in series.points[::sign]] for sign in (1, -1)]
        parts.append(element("polygon", points=pairs([*sides[0], *sides[1]]), class_="band"))
    if len(places) > 1:
        parts.append(element("polyline", points=pairs(places), class_=f"line d{series.mark % len(MARKS)}"))
    for point, (px, py) in zip(series.points, places, strict=True):
        bar = None
        if point.spread and not series.band:
            ends = {"y1": at(y(point.y - point.spread)), "y2": at(y(point.y + point.spread))}
            bar = element("line", x1=at(px), x2=at(px), **ends, class_="bar")
        parts.append(element("g", element("title", point.about), bar, mark(series.mark, px, py)))
    return element("g", *parts, class_=f"c{series.colour % COLOURS}")


def mark(shape: int, x: float, y: float) -> Html:
    """One point."""
    name = MARKS[shape % len(MARKS)]
    if name == "circle":
        return element("circle", cx=at(x), cy=at(y), r="4", class_="mark")
    corners = {
        "square": [(-3.6, -3.6), (3.6, -3.6), (3.6, 3.6), (-3.6, 3.6)],
        "triangle": [(0, -5), (4.6, 3.6), (-4.6, 3.6)],
        "diamond": [(0, -5.2), (5.2, 0), (0, 5.2), (-5.2, 0)],
    }
    return element("polygon", points=pairs([(x + dx, y + dy) for dx, dy in corners[name]]), class_="mark")


def swatch(series: Series) -> Html:
    """A piece of a series' line for the legend."""
    line = element("line", x1="1", x2="27", y1="7", y2="7", class_=f"line d{series.mark % len(MARKS)}")
    inner = element("g", line, mark(series.mark, 14, 7), class_=f"c{series.colour % COLOURS}")
    return element("svg", inner, viewBox="0 0 28 14", class_="swatch", aria_hidden="true")


def pairs(places: Sequence[tuple[float, float]]) -> str:
    """Points as SVG writes them."""
    return " ".join(f"{at(x)},{at(y)}" for x, y in places)


def at(value: float) -> str:
    """A coordinate, to a tenth of a pixel."""
    return f"{value:.1f}"


def charts(figures: Sequence[Html]) -> Html | None:
    """Figures beside each other; None where all are empty."""
    drawn = [figure for figure in figures if figure]
    return element("div", join(drawn), class_="charts") if drawn else None
