"""Accuracy against output tokens, one point for each server and effort."""

import io

from matplotlib.backends.backend_agg import FigureCanvasAgg
from matplotlib.figure import Figure

from programs.eval.summary import Column, Summary


def picture(summary: Summary) -> bytes:
    """A PNG. The points of one server are joined in the order of their tokens; bars are the 95 % intervals."""
    figure = Figure(figsize=(8, 5), dpi=120, layout="constrained")
    FigureCanvasAgg(figure)
    axes = figure.add_subplot()
    for name in dict.fromkeys(column.name for column in summary.columns):
        points = [(column, *at) for column in summary.columns if column.name == name and (at := _point(column))]
        if not points:
            continue
        points.sort(key=lambda point: point[1])
        across, up = [x for _, x, *_ in points], [y for _, _, y, *_ in points]
        below = [y - low for _, _, y, low, _ in points]
        above = [high - y for _, _, y, _, high in points]
        line = axes.errorbar(across, up, yerr=(below, above), marker="o", capsize=4, linewidth=1)
        line.set_label(f" {_short(name)}")  # a label that begins with "_" would be left out of the legend
        for column, x, y, *_ in points:
            axes.annotate(column.effort, (x, y), xytext=(6, 6), textcoords="offset points")
    axes.set_xlabel("output tokens of a reply, mean")
    axes.set_ylabel("right among all asked, %")
    axes.set_ylim(-3, 103)
    axes.margins(x=0.12)  # room for the names of the efforts
    axes.grid(alpha=0.3)
    if axes.get_legend_handles_labels()[0]:
        for text in axes.legend().get_texts():
            text.set_parse_math(False)  # a model's name is text, whatever dollars it holds
    content = io.BytesIO()
    figure.savefig(content, format="png")
    return content.getvalue()


def _point(column: Column) -> tuple[float, float, float, float] | None:
    """Tokens and accuracy with its bounds, in per cent."""
    tokens = column.lengths.output_tokens if column.lengths else None
    share = column.of_asked
    if tokens is None or share is None:
        return None
    low, high = (share.estimate if bound is None else bound for bound in (share.low, share.high))
    return tokens, 100 * share.estimate, 100 * low, 100 * high


def _short(name: str) -> str:
    return "".join(c if c.isprintable() else "?" for c in name)[:60]
