"""A question's requests as a picture, SVG or PNG, in which what was said is only text."""

import io
import math
import re
import warnings
from bisect import bisect_right
from collections.abc import Sequence
from dataclasses import dataclass
from itertools import accumulate
from typing import TYPE_CHECKING, Any
from unicodedata import east_asian_width
from xml.sax.saxutils import escape

from sgl_small4.prompt.node import Node

if TYPE_CHECKING:  # a graph draws itself with this file
    from programs.graph import Outcome, Usage

# Sizes in pixels. The font is monospaced, so that what fits a box is known without measuring it.

BOX_WIDTH, GAP_X, GAP_Y, MARGIN, HEADER, LEGEND = 284.0, 52.0, 16.0, 24.0, 92.0, 44.0
CHARACTER = 0.602  # a character's width in DejaVu Sans Mono, as a share of the font's size; the others are narrower
FONTS = "'DejaVu Sans Mono', Menlo, Consolas, 'Liberation Mono', monospace"
COLOURS = {  # on a light and on a dark page
    "page": ("#ffffff", "#0d1117"),
    "box": ("#f6f8fa", "#151b23"),
    "edge": ("#8c959f", "#656c76"),
    "track": ("#d1d9e0", "#333b45"),
    "ink": ("#1f2328", "#f0f6fc"),
    "muted": ("#59636e", "#9198a1"),
    "prefill": ("#0f766e", "#2dd4bf"),
    "generate": ("#0969da", "#58a6ff"),
    "select": ("#8250df", "#bc8cff"),
    "cut": ("#9a6700", "#d29922"),
    "failed": ("#cf222e", "#ff7b72"),
}


@dataclass(frozen=True)
class _Rectangle:
    x: float
    y: float
    width: float
    height: float
    fill: str
    stroke: str = "none"
    dashed: bool = False
    radius: float = 0.0


@dataclass(frozen=True)
class _Line:
    """Text from x on, its foot at y."""

    x: float
    y: float
    text: str
    colour: str = "ink"
    bold: bool = False
    size: float = 12.0


@dataclass(frozen=True)
class _Edge:
    """From the middle of a box's right side to the middle of another's left side."""

    x: float
    y: float
    to_x: float
    to_y: float
    dashed: bool


@dataclass(frozen=True)
class _Box:
    """A node; its shapes are placed from its own corner."""

    node: Node
    x: float
    y: float
    height: float
    shapes: list[_Rectangle | _Line]


@dataclass(frozen=True)
class Picture:
    width: float
    height: float
    edges: list[_Edge]
    boxes: list[_Box]
    around: list[_Rectangle | _Line]  # header and legend


def draw(
    nodes: Sequence[Node], usage: "Usage", outcome: "Outcome | None", *, question: str, effort: str, seconds: float
) -> Picture:
    """Nodes from left to right, parents before children; `usage` is their sum, `seconds` how long it all took."""
    places = _places(nodes)
    box_height = 154.0 if any(node.state or node.next_step for node in nodes) else 122.0
    until = max([seconds, *(node.began + node.seconds for node in nodes)])
    boxes: dict[int, _Box] = {}
    edges = []
    for node in nodes:
        column, row = places[node.id]
        x = MARGIN + column * (BOX_WIDTH + GAP_X)
        y = HEADER + row * (box_height + GAP_Y)
        boxes[node.id] = _Box(node, x, y, box_height, _inside(node, box_height, until))
        if node.parent in boxes:
            parent, middle = boxes[node.parent], box_height / 2
            dashed = _fate(node) == "cancelled"
            edges.append(_Edge(parent.x + BOX_WIDTH, parent.y + middle, x, y + middle, dashed))
    width = max([780.0, *(box.x + BOX_WIDTH + MARGIN for box in boxes.values())])
    bottom = max([HEADER, *(box.y + box_height for box in boxes.values())])
    columns = int((width - 2 * MARGIN) / (CHARACTER * 15))
    around: list[_Rectangle | _Line] = [_Line(MARGIN, 32, fit(question, columns), bold=True, size=15)]
    if outcome:
        around.append(_Line(MARGIN, 54, fit(f"= {outcome.answer}", columns), size=15))
    counts = [
        f"effort {fit(effort, 20)}, {fit(outcome_line(outcome), 40)}",
        f"{usage.requests:,} request{'s' * (usage.requests != 1)}",
        f"in {usage.prompt_tokens:,}, {usage.cached_tokens:,} cached",
        f"out {usage.completion_tokens:,}, {usage.trace_tokens:,} in traces",
        f"{seconds:.2f} s",
    ]
    around.append(_Line(MARGIN, 76, fit(" | ".join(counts), int((width - 2 * MARGIN) / (CHARACTER * 12))), "muted"))
    x, y = MARGIN, bottom + 30
    for kind in ("prefill", "generate", "select"):
        around += [_Rectangle(x, y - 10, 10, 10, kind, radius=2), _Line(x + 16, y, kind, "muted", size=11)]
        x += 34 + len(kind) * CHARACTER * 11
    how = "thick bar: prompt from cache | thin bar: when it ran | dashed: cancelled"
    around.append(_Line(x, y, how, "muted", size=11))
    return Picture(width, bottom + LEGEND, edges, list(boxes.values()), around)


def _places(nodes: Sequence[Node]) -> dict[int, tuple[int, float]]:
    """Column and row of each node: its depth, and the middle of its children's rows; leaves have a row each, in the
    order of a walk. The rows that a node's leaves take are its alone, so no two nodes of a column can overlap."""
    children: dict[int | None, list[int]] = {}
    depths: dict[int, int] = {}
    for node in nodes:  # parents come first
        parent = node.parent if node.parent in depths else None
        depths[node.id] = depths[parent] + 1 if parent is not None else 0
        children.setdefault(parent, []).append(node.id)
    rows: dict[int, float] = {}
    walk = children.get(None, [])[::-1]
    while walk:
        id = walk.pop()
        if id in children:
            walk += children[id][::-1]
        else:
            rows[id] = float(len(rows))
    for id in sorted(depths, reverse=True):
        if id in children:
            rows[id] = (rows[children[id][0]] + rows[children[id][-1]]) / 2
    return {id: (depths[id], rows[id]) for id in depths}


def _inside(node: Node, height: float, until: float) -> list[_Rectangle | _Line]:
    fate = _fate(node)
    colour = {"failed": "failed", "cancelled": "edge"}.get(fate, node.kind)
    text_colour = "muted" if fate == "cancelled" else "ink"
    left, width = 18.0, BOX_WIDTH - 30
    columns = int(width / (CHARACTER * 12))
    out = f"out {node.completion_tokens:,}"
    if node.trace_tokens:
        out += f", {node.trace_tokens:,} in the trace"
    ended = node.finish_reason if fate in ("", node.finish_reason) else f"{fate} ({node.finish_reason})"
    if node.probability is not None:
        ended += f", probability {node.probability:.2f}"
    ended_colour = "failed" if fate == "failed" else "cut" if node.finish_reason == "length" else text_colour
    head = f"#{node.id} {node.kind}"
    name_at = left + (len(head) + 1) * CHARACTER * 12
    cached = min(1.0, node.cached_tokens / node.prompt_tokens) if node.prompt_tokens else 0.0
    shapes: list[_Rectangle | _Line] = [
        _Rectangle(0, 0, BOX_WIDTH, height, "box", "failed" if fate == "failed" else "edge", fate == "cancelled", 6),
        _Rectangle(0, 0, 6, height, colour, radius=3),
        _Line(left, 21, head, "muted" if fate == "cancelled" else colour, bold=True),
        _Line(name_at, 21, fit(node.name, columns - len(head) - 1), text_colour, bold=True),
        _Line(left, 41, fit(f"in {node.prompt_tokens:,}, {node.cached_tokens:,} cached", columns), text_colour),
        _Rectangle(left, 47, width, 6, "track", radius=3),
        _Line(left, 70, fit(f"{out}, {node.seconds:.2f} s", columns), text_colour),
        _Line(left, 87, fit(ended, columns), ended_colour),
        _Line(left, 104, fit(f"= {node.text}" if node.text.strip() else "no text", columns), text_colour),
    ]
    if cached:
        shapes.append(_Rectangle(left, 47, width * cached, 6, colour, radius=3))
    if node.state:
        shapes.append(_Line(left, 123, fit(node.state, columns), "failed" if fate == "failed" else "cut", bold=True))
    if node.next_step:
        shapes.append(_Line(left, 139, fit(f"> {node.next_step}", columns), "cut"))
    shapes.append(_Rectangle(left, height - 7, width, 2, "track"))
    if until > 0:
        ran = max(2.0, width * node.seconds / until)
        shapes.append(_Rectangle(left + (width - 2) * node.began / until, height - 7, ran, 2, text_colour))
    return shapes


def _fate(node: Node) -> str:
    if node.finish_reason == "error" or node.state == "failed":
        return "failed"
    return "cancelled" if node.finish_reason == "abort" or node.state == "cancelled" else ""


def outcome_line(outcome: "Outcome | None") -> str:
    if outcome is None:
        return "no answer yet"
    return outcome.state + (f", confidence {outcome.confidence:.2f}" if outcome.confidence is not None else "")


def as_svg(picture: Picture, linked: bool = False) -> str:
    """`linked`: a click on a box leads to its node's text in the page."""
    size = f"{_number(picture.width)} {_number(picture.height)}"
    lines = [
        f'<svg xmlns="http://www.w3.org/2000/svg" viewBox="0 0 {size}" '
        f'width="{_number(picture.width)}" height="{_number(picture.height)}" class="graph">',
        f"<style>\n{_STYLE}</style>",
        '<rect class="fill-page" width="100%" height="100%"/>',
    ]
    clip = f"box-{_number(picture.boxes[0].height)}" if picture.boxes else ""
    if clip:
        # Some characters are wider than any estimate: nothing is drawn outside its box.
        lines.append(
            f'<clipPath id="{clip}"><rect x="-2" y="-2" width="{_number(BOX_WIDTH + 4)}" '
            f'height="{_number(picture.boxes[0].height + 4)}"/></clipPath>'
        )
    for edge in picture.edges:
        x, y, to_x, to_y, bend = map(_number, (edge.x, edge.y, edge.to_x, edge.to_y, (edge.x + edge.to_x) / 2))
        dashed = " dashed" if edge.dashed else ""
        lines.append(f'<path class="edge{dashed}" d="M{x} {y}C{bend} {y} {bend} {to_y} {to_x} {to_y}"/>')
    for box in picture.boxes:
        node = box.node
        lines.append(
            f'<g class="node {" ".join(filter(None, (node.kind, _fate(node))))}" data-id="{node.id}" '
            f'transform="translate({_number(box.x)} {_number(box.y)})" clip-path="url(#{clip})">'
        )
        lines.append(f"<title>{escape(fit(f'#{node.id} {node.kind} {node.name}: {node.text}', 400))}</title>")
        lines += [f'<a href="#node-{node.id}">'] if linked else []
        lines += map(_shape_as_svg, box.shapes)
        lines += ["</a>"] if linked else []
        lines.append("</g>")
    lines += map(_shape_as_svg, picture.around)
    return "\n".join([*lines, "</svg>\n"])


def _shape_as_svg(shape: _Rectangle | _Line) -> str:
    place = f'x="{_number(shape.x)}" y="{_number(shape.y)}"'
    if isinstance(shape, _Line):
        bold = " bold" if shape.bold else ""
        return (
            f'<text {place} class="fill-{shape.colour}{bold}" '
            f'font-size="{_number(shape.size)}">{escape(shape.text)}</text>'
        )
    stroke = f" stroke-{shape.stroke}" if shape.stroke != "none" else ""
    return (
        f'<rect {place} width="{_number(shape.width)}" height="{_number(shape.height)}" rx="{_number(shape.radius)}" '
        f'class="fill-{shape.fill}{stroke}{" dashed" if shape.dashed else ""}"/>'
    )


def _number(value: float) -> str:
    return f"{value:.1f}".removesuffix(".0")


def _style() -> str:
    """Classes of `.graph` alone, for a page has its own."""
    rules = [
        f".graph text {{ font-family: {FONTS}; white-space: pre; }}",
        ".graph .bold { font-weight: bold; }",
        ".graph .edge { fill: none; stroke-width: 1.5; }",
        ".graph .dashed { stroke-dasharray: 5 4; }",
    ]
    for which in (0, 1):
        paint = [f".graph .edge {{ stroke: {COLOURS['edge'][which]}; }}"]
        for name, pair in COLOURS.items():
            paint.append(f".graph .fill-{name} {{ fill: {pair[which]}; }}")
            paint.append(f".graph .stroke-{name} {{ stroke: {pair[which]}; }}")
        rules += ["@media (prefers-color-scheme: dark) {", *paint, "}"] if which else paint
    return "\n".join(rules) + "\n"


_STYLE = _style()


def as_png(picture: Picture) -> bytes:
    """On a light page, twice the size; a very large picture is drawn smaller, down to what fits 60 million pixels."""
    # Slow to import, and only this form needs it.
    from matplotlib.axes import Axes
    from matplotlib.figure import Figure
    from matplotlib.patches import FancyBboxPatch, PathPatch, Rectangle
    from matplotlib.path import Path as Curve

    figure = Figure(figsize=(picture.width / 100, picture.height / 100))
    dpi = min(200.0, 100 * 30_000 / max(picture.width, picture.height))
    dpi = min(dpi, 100 * math.sqrt(60e6 / (picture.width * picture.height)))
    axes: Axes = figure.add_axes((0, 0, 1, 1))
    axes.set(xlim=(0, picture.width), ylim=(picture.height, 0))
    axes.axis("off")

    def add(shape: _Rectangle | _Line, x: float, y: float, clip: Rectangle | None) -> None:
        x, y = x + shape.x, y + shape.y
        if isinstance(shape, _Line):
            text = axes.text(
                x,
                y,
                shape.text,
                fontsize=shape.size * 0.72,  # points of the figure's 100 pixels an inch
                color=COLOURS[shape.colour][0],
                weight="bold" if shape.bold else "normal",
                family="DejaVu Sans Mono",
                parse_math=False,
            )
            text.set_clip_path(clip)
            return
        outline: dict[str, Any] = {"facecolor": COLOURS[shape.fill][0], "linewidth": 0.0}
        if shape.stroke != "none":
            outline |= {"edgecolor": COLOURS[shape.stroke][0], "linewidth": 0.8}
        if shape.dashed:
            outline["linestyle"] = (0, (5, 4))
        radius = min(shape.radius, shape.width / 2, shape.height / 2)
        style = f"round,pad=0,rounding_size={radius}" if radius else "square,pad=0"
        axes.add_patch(FancyBboxPatch((x, y), shape.width, shape.height, boxstyle=style, **outline))

    for edge in picture.edges:
        bend = (edge.x + edge.to_x) / 2
        points = [(edge.x, edge.y), (bend, edge.y), (bend, edge.to_y), (edge.to_x, edge.to_y)]
        curve = Curve(points, [Curve.MOVETO, Curve.CURVE4, Curve.CURVE4, Curve.CURVE4])
        dashes: Any = (0, (5, 4)) if edge.dashed else "solid"
        axes.add_patch(PathPatch(curve, fill=False, edgecolor=COLOURS["edge"][0], linewidth=1.1, linestyle=dashes))
    for box in picture.boxes:
        clip = Rectangle((box.x, box.y), BOX_WIDTH, box.height, transform=axes.transData)
        for shape in box.shapes:
            add(shape, box.x, box.y, clip)
    for shape in picture.around:
        add(shape, 0, 0, None)
    content = io.BytesIO()
    with warnings.catch_warnings():
        warnings.filterwarnings("ignore", message="Glyph .* missing from font")  # drawn as an empty box
        figure.savefig(content, format="png", dpi=dpi, facecolor=COLOURS["page"][0], metadata={"Software": None})
    return content.getvalue()


# What a reader cannot see, or a terminal, XML or the order of a line would obey: controls but tab and line feed, marks
# of direction, invisible characters but the joiners that emoji and some scripts need, lone surrogates, non-characters.
_HIDDEN = re.compile(
    r"[\x00-\x08\x0b-\x1f\x7f-\x9f\xad\u061c\u180e\u200b\u200e\u200f\u2028-\u202e\u2060-\u206f\ud800-\udfff\ufeff"
    r"\ufff9-\ufffb\ufffe\uffff\U000e0000-\U000e0fff]"
)


def visible(text: str) -> str:
    """Hidden characters by their numbers, as Python's ascii() writes them."""
    return _HIDDEN.sub(lambda match: ascii(match[0])[1:-1], text.replace("\r\n", "\n"))


def fit(text: str, columns: int) -> str:
    """One line of at most so many columns; wide characters take two."""
    text = text.strip()
    head = text[: 8 * columns]
    shown = " ".join(visible(head).split()) + "…" * (len(head) < len(text))
    ends = list(accumulate(2 if east_asian_width(character) in "WF" else 1 for character in shown))
    if not ends or ends[-1] <= columns:
        return shown
    return shown[: bisect_right(ends, columns - 1)] + "…"
