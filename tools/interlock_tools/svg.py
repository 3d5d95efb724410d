"""Small pictures as SVG text: lines over one x axis, with no library.

A value that is not a number is not known: the line has a gap there.
"""

import math
from html import escape
from typing import Final, NamedTuple

import numpy as np
from numpy.typing import NDArray

Floats = NDArray[np.float64]

WIDTH, HEIGHT = 640, 360
LEFT, RIGHT, TOP, BOTTOM = 70, 20, 40, 50
COLOURS: Final = ("#444444", "#0a7d3c", "#c0392b", "#2471a3")
TICKS = 5


class Picture(NamedTuple):
    """Lines over one x axis, to be drawn."""

    title: str
    x_label: str
    y_label: str
    lines: dict[str, tuple[Floats, Floats]]


def as_svg(picture: Picture) -> str:
    """The picture as one SVG document."""
    x_all = np.concatenate([x for x, _ in picture.lines.values()])
    y_all = np.concatenate([y for _, y in picture.lines.values()])
    x_span, y_span = _span(x_all), _span(y_all)
    parts = [
        f'<svg xmlns="http://www.w3.org/2000/svg" width="{WIDTH}" height="{HEIGHT}"'
        ' font-family="sans-serif" font-size="12">',
        f'<rect width="{WIDTH}" height="{HEIGHT}" fill="white"/>',
        _text(WIDTH / 2, 20, picture.title, "middle"),
        _text(WIDTH / 2, HEIGHT - 10, picture.x_label, "middle"),
        _text(8, TOP - 8, picture.y_label, "start"),
    ]
    for tick in np.linspace(*x_span, TICKS):
        x = _across(tick, x_span)
        parts += [_text(x, HEIGHT - BOTTOM + 18, f"{tick:.4g}", "middle")]
    for tick in np.linspace(*y_span, TICKS):
        y = _up(tick, y_span)
        parts += [
            f'<line x1="{LEFT}" x2="{WIDTH - RIGHT}" y1="{y:.1f}" y2="{y:.1f}" stroke="#dddddd"/>',
            _text(LEFT - 6, y + 4, f"{tick:.4g}", "end"),
        ]
    for number, (name, (x_values, y_values)) in enumerate(picture.lines.items()):
        colour = COLOURS[number % len(COLOURS)]
        for known in _known(x_values, y_values):
            points = " ".join(f"{_across(x, x_span):.1f},{_up(y, y_span):.1f}" for x, y in known)
            parts += [
                f'<polyline points="{points}" fill="none" stroke="{colour}" stroke-width="1.5"/>'
            ]
        parts += [
            f'<g fill="{colour}">'
            + _text(WIDTH - RIGHT - 6, TOP + 14 + 16 * number, name, "end")
            + "</g>",
        ]
    return "\n".join([*parts, "</svg>"]) + "\n"


def _known(x_values: Floats, y_values: Floats) -> list[list[tuple[float, float]]]:
    """The stretches of a line between its gaps."""
    stretches: list[list[tuple[float, float]]] = [[]]
    for x, y in zip(x_values.tolist(), y_values.tolist(), strict=True):
        if not math.isnan(y):
            stretches[-1].append((x, y))
        elif stretches[-1]:
            stretches.append([])
    return [stretch for stretch in stretches if stretch]


def _span(values: Floats) -> tuple[float, float]:
    known = values[~np.isnan(values)]
    low, high = (float(known.min()), float(known.max())) if known.size else (0.0, 0.0)
    margin = 0.05 * (high - low) or 1.0
    return low - margin, high + margin


def _across(x: float, span: tuple[float, float]) -> float:
    return LEFT + (x - span[0]) / (span[1] - span[0]) * (WIDTH - LEFT - RIGHT)


def _up(y: float, span: tuple[float, float]) -> float:
    return HEIGHT - BOTTOM - (y - span[0]) / (span[1] - span[0]) * (HEIGHT - TOP - BOTTOM)


def _text(x: float, y: float, text: str, anchor: str) -> str:
    return f'<text x="{x:.1f}" y="{y:.1f}" text-anchor="{anchor}">{escape(text)}</text>'
