"""What a page's styles hide: inline styles, its own style sheets, and the attributes that say the same.

No style sheet outside the file is known, nor what scripts do. Of the cascade, importance, specificity (counted, not
parsed) and order are kept; rules for other media than the screen, for states such as :hover, and nested ones are not.
"""

import re
import time
from dataclasses import dataclass, replace
from functools import cached_property
from typing import Literal

from selectolax.lexbor import LexborHTMLParser, LexborNode, SelectolaxError

RULE_LIMIT = 5_000  # rules of one page that are matched
WAYS_LIMIT = 100_000  # in which a selector may be tried on one element: "a b c" goes up the page for b, and again for a
MATCHING_LIMIT = 10.0  # seconds that all rules of a page may take
NEAR = 24  # of 255: two colours that differ by less in every channel are not told apart by eye

Colour = tuple[int, int, int] | Literal["unknown"]
Declarations = dict[str, str]

COMMENT = re.compile(r"/\*.*?(?:\*/|\Z)", re.DOTALL)
HIDING = re.compile(
    r"(?:display|visibility|opacity|font-size|font|color|background|background-color|text-indent|left|top|margin-left"
    r"|clip|clip-path|height|max-height|width|max-width|transform|overflow)"
)
LENGTH = re.compile(r"(-?[0-9]{0,9}\.?[0-9]{1,9})(px|pt|em|rem|ex|ch|%|vw|vh|cm|mm|in)?")
IN_PIXELS = {"px": 1.0, "pt": 4 / 3, "em": 16.0, "rem": 16.0, "ex": 8.0, "ch": 8.0, "%": 0.16, "": 1.0, None: 1.0}
IN_PIXELS |= {"vw": 10.0, "vh": 10.0, "cm": 38.0, "mm": 3.8, "in": 96.0}
COLOURS: dict[str, Colour] = {
    "white": (255, 255, 255), "snow": (255, 250, 250), "ivory": (255, 255, 240), "ghostwhite": (248, 248, 255),
    "whitesmoke": (245, 245, 245), "floralwhite": (255, 250, 240), "mintcream": (245, 255, 250),
    "azure": (240, 255, 255), "black": (0, 0, 0), "red": (255, 0, 0), "green": (0, 128, 0), "blue": (0, 0, 255),
    "yellow": (255, 255, 0), "gray": (128, 128, 128), "grey": (128, 128, 128), "silver": (192, 192, 192),
    "navy": (0, 0, 128), "lightgray": (211, 211, 211), "lightgrey": (211, 211, 211),
}  # fmt: skip
TRANSPARENT = re.compile(r"transparent|(?:rgba|hsla)\([^)]*[, ]0?\.?0*\)|#[0-9a-f]{3}0|#[0-9a-f]{6}00")


@dataclass(frozen=True)
class Seen:
    """How the text of an element shows; handed down to what is in it. `gone`: why none of it can be seen, or ""."""

    gone: str = ""
    invisible: bool = False
    size: float = 16.0  # pixels
    colour: Colour | Literal["none"] = (0, 0, 0)
    background: Colour = (255, 255, 255)

    @cached_property
    def why_hidden(self) -> str:
        """What hides the text, or ""."""
        if self.gone:
            return self.gone
        if self.invisible:
            return "visibility: hidden"
        if self.size < 2:
            return "letters smaller than 2 pixels"
        if self.colour == "none":
            return "transparent letters"
        if self.colour != "unknown" and self.background != "unknown":
            if all(abs(one - other) < NEAR for one, other in zip(self.colour, self.background, strict=True)):
                return "letters in the colour of their background"
        return ""


class Styles:
    """The style sheets of one page, matched to its elements. `depth`: how deep these nest. `unmatched`: how many rules
    were not, because that would take too long."""

    def __init__(self, tree: LexborHTMLParser, depth: int):
        self.unmatched = 0
        self._of: dict[int, Declarations] = {}
        self._important: dict[int, Declarations] = {}
        rules = []
        for sheet in tree.css("style"):
            rules += _rules(sheet.text() or "")
        if not any(_could_hide(declarations) for _, declarations in rules):
            return
        self.unmatched = max(0, len(rules) - RULE_LIMIT)
        until = time.monotonic() + MATCHING_LIMIT
        for selector, declarations in sorted(rules[:RULE_LIMIT], key=lambda rule: _specificity(rule[0])):
            steps = len(re.split(r"\s+|~", re.sub(r"\s*([>+~])\s*", r"\1", selector))) - 1
            if max(depth, 1) ** max(steps - 1, 0) > WAYS_LIMIT or time.monotonic() > until:
                self.unmatched += 1
                continue
            try:
                matched = tree.css(selector)
            except SelectolaxError:
                continue  # a selector that this parser does not know: what it styles is read as shown
            for node in matched:
                for name, value in declarations.items():
                    plain = value.removesuffix("!important").rstrip()
                    of = self._of if plain == value else self._important
                    of.setdefault(node.mem_id, {})[name] = plain

    def seen(self, node: LexborNode, around: Seen) -> Seen:
        """How an element shows within one that shows as `around`."""
        attributes = node.attributes
        style = attributes.get("style")
        if not attributes and node.mem_id not in self._of and node.mem_id not in self._important:
            return around if node.tag != "dialog" else _within(around, {"display": "none"})
        declared = {**_attributes(node.tag or "", attributes), **self._of.get(node.mem_id, {})}
        if style:
            declared |= {
                name: value.removesuffix("!important").rstrip() for name, value in _declarations(style).items()
            }
        declared |= self._important.get(node.mem_id, {})
        return _within(around, declared) if declared else around


def _within(around: Seen, declared: Declarations) -> Seen:
    gone = around.gone or _gone(declared)
    visibility = declared.get("visibility", "")
    invisible = visibility in ("hidden", "collapse") if visibility else around.invisible
    size = _size(declared.get("font-size", ""), around.size)
    colour = _colour(declared["color"], around.colour) if "color" in declared else around.colour
    background = around.background
    for name in ("background", "background-color"):
        if name in declared:
            background = _background(declared[name], background)
    return replace(around, gone=gone, invisible=invisible, size=size, colour=colour, background=background)


def _gone(declared: Declarations) -> str:
    """Why neither the element nor anything in it can be seen, or ""."""
    if declared.get("display") == "none":
        return "display: none"
    opacity = declared.get("opacity", "")
    if LENGTH.fullmatch(opacity) and float(LENGTH.fullmatch(opacity)[1]) < 0.05:  # type: ignore[index]
        return "opacity: 0"
    for name in ("text-indent", "left", "top", "margin-left"):
        if (pixels := _pixels(declared.get(name, ""))) is not None and pixels <= -500:
            return "it stands outside the page"
    if re.match(r"rect\(\s*[01](px)?[\s,]+[01](px)?[\s,]+[01](px)?[\s,]+[01](px)?\s*\)", declared.get("clip", "")):
        return "clipped away"
    if re.match(r"inset\(\s*(50|100)%", declared.get("clip-path", "")):
        return "clipped away"
    if re.match(r"scale\(\s*0?\.?0*\s*\)", declared.get("transform", "")):
        return "scaled to nothing"
    if declared.get("overflow", "").startswith(("hidden", "clip")):
        for name in ("height", "max-height", "width", "max-width"):
            if (pixels := _pixels(declared.get(name, ""))) is not None and pixels < 1:
                return "clipped away"
    return ""


def _attributes(tag: str, attributes: dict[str, str | None]) -> Declarations:
    """What attributes say that styles say too."""
    said: Declarations = {}
    if "hidden" in attributes or (tag == "dialog" and "open" not in attributes):
        said["display"] = "none"
    if colour := attributes.get("bgcolor"):
        said["background-color"] = colour.strip().lower()
    if attributes.get("background"):
        said["background"] = "url()"
    colour = attributes.get("color" if tag == "font" else "text" if tag == "body" else "fill" if tag == "text" else "")
    if colour:
        said["color"] = colour.strip().lower()
    return said


def _declarations(style: str) -> Declarations:
    """Those that can hide, by name; later ones win."""
    found = {}
    for declaration in COMMENT.sub("", style).lower().split(";"):
        name, _, value = declaration.partition(":")
        if HIDING.fullmatch(name.strip()):
            found[name.strip()] = value.strip()
    if (font := found.pop("font", None)) and (size := LENGTH.search(font)):
        found.setdefault("font-size", size[0])
    return found


def _rules(sheet: str) -> list[tuple[str, Declarations]]:
    """The rules at the top of a style sheet: those of @media, @supports and their like are left out, except for the
    screen's and for all."""
    found: list[tuple[str, Declarations]] = []
    sheet = re.sub(r"<!--|-->", "", COMMENT.sub("", sheet))
    position = 0
    while (opened := sheet.find("{", position)) >= 0:
        selector = sheet[position:opened].rpartition(";")[2].rpartition("}")[2].strip()
        closed = sheet.find("}", opened)
        if selector.startswith("@"):
            if re.fullmatch(r"@media\s+(all|screen)", selector, re.IGNORECASE):
                position = opened + 1  # its rules follow; its end is taken off the next selector
                continue
            position = _closing(sheet, opened)
            continue
        if closed < 0:
            break
        declarations = _declarations(sheet[opened + 1 : closed])
        position = closed + 1
        if declarations:
            found += [(one.strip(), declarations) for one in selector.split(",") if one.strip() and ":" not in one]
    return found


def _closing(sheet: str, opened: int) -> int:
    """Behind the brace that closes the one at `opened`."""
    depth = 0
    for brace in re.compile("[{}]").finditer(sheet, opened):
        depth += 1 if brace[0] == "{" else -1
        if depth == 0:
            return brace.end()
    return len(sheet)


def _could_hide(declarations: Declarations) -> bool:
    return bool(_within(Seen(), declarations).why_hidden or "color" in declarations)


def _specificity(selector: str) -> tuple[int, int, int]:
    return (
        selector.count("#"),
        len(re.findall(r"[.\[]", selector)),
        len(re.findall(r"(?:^|[\s>+~])[a-z]", selector, re.I)),
    )


def _pixels(value: str) -> float | None:
    length = LENGTH.fullmatch(value)
    return float(length[1]) * IN_PIXELS[length[2]] if length else None


def _size(value: str, around: float) -> float:
    length = LENGTH.fullmatch(value)
    if not length:
        return 16.0 if re.fullmatch(r"(xx?-)?(small|large)|medium|initial", value) else around
    number = float(length[1])
    if length[2] in ("em", "ex", "ch"):
        return number * around
    return number / 100 * around if length[2] == "%" else number * IN_PIXELS[length[2]]


def _colour(value: str, around: Colour | Literal["none"]) -> Colour | Literal["none"]:
    if value in ("", "inherit", "currentcolor"):
        return around
    if TRANSPARENT.fullmatch(value):
        return "none"
    return rgb(value)


def _background(value: str, around: Colour) -> Colour:
    """A colour, whatever else the value says; unknown behind pictures and gradients."""
    if "url(" in value or "gradient" in value:
        return "unknown"
    if value in ("", "none", "inherit", "initial", "unset", "0") or TRANSPARENT.fullmatch(value):
        return around
    return rgb(value)


def rgb(value: str) -> Colour:
    if value in COLOURS:
        return COLOURS[value]
    if short := re.fullmatch(r"#?([0-9a-f])([0-9a-f])([0-9a-f])[0-9a-f]?", value):
        red, green, blue = (int(digit * 2, 16) for digit in short.groups())
        return red, green, blue
    if long := re.fullmatch(r"#?([0-9a-f]{2})([0-9a-f]{2})([0-9a-f]{2})(?:[0-9a-f]{2})?", value):
        red, green, blue = (int(digits, 16) for digits in long.groups())
        return red, green, blue
    if function := re.match(r"rgba?\(\s*(\d{1,3})[\s,]+(\d{1,3})[\s,]+(\d{1,3})", value):
        red, green, blue = (min(int(number), 255) for number in function.groups())
        return red, green, blue
    if re.match(r"hsla?\([^)]*[,\s]100%\s*[,/)]", value):
        return 255, 255, 255
    return "unknown"
