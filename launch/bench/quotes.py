"""Finding quotes: 200 of them in 2 MB of text, and whether altered ones pass for real.

The prose is that of the licences of the installed packages. Altered quotes have a word swapped, a number changed, or a
"not" put in or left out; reformatted ones are wrapped anew, with curly quotation marks and hyphens at line ends.
"""

import argparse
import importlib.metadata
import random
import re
import sys
import textwrap
import time
from collections.abc import Callable, Iterator
from pathlib import Path

from launch.bench.figures import Row, report
from launch.errors import LaunchError
from programs.documents.find import Finder

SIZE = 2_000_000  # characters of text
QUOTES, SHORTEST, LONGEST = 200, 30, 2000
ALTERED = 500
SECONDS = 5.0

Alteration = Callable[[str, random.Random], str | None]


def prose() -> str:
    """The licences of the installed packages, as often as they are needed to fill the size."""
    texts: set[str] = set()
    for package in importlib.metadata.distributions():
        for file in package.files or ():
            if re.match(r"(LICEN[CS]E|COPYING|NOTICE)", file.name, re.IGNORECASE) and file.suffix != ".py":
                try:
                    texts.add(file.read_text(encoding="utf-8"))
                except (OSError, UnicodeDecodeError):
                    continue
    whole = "\n".join(sorted(texts))
    if not whole.strip():
        raise LaunchError("No installed package has a licence to quote from: install some, as with `pip install -e .`.")
    return (whole * (SIZE // len(whole) + 1))[:SIZE]


def slices(text: str, chance: random.Random, least: int, most: int) -> Iterator[str]:
    """Quotes of whole words, without end."""
    while True:
        length = chance.randint(least, most)
        start = text.find(" ", chance.randrange(len(text) - length)) + 1
        quote = text[start : max(start, text.rfind(" ", start, start + length))].strip()
        if len(quote) >= least // 2 and not re.search(r"-\s*\Z", text[:start][-80:]) and not quote.endswith("-"):
            yield quote


def invented(quote: str, chance: random.Random) -> str:
    """Its words in another order."""
    words = quote.split()
    chance.shuffle(words)
    return " ".join(words)


def speed(text: str, chance: random.Random) -> Row:
    """All of it counts: what is built for the first quote, too."""
    drawn = slices(text, chance, SHORTEST, LONGEST)
    known = bare(text)
    real = [next(drawn) for _ in range(QUOTES // 2)]
    absent = [quote for quote in (invented(next(drawn), chance) for _ in range(2 * QUOTES)) if bare(quote) not in known]
    quotes = [*real, *absent[: QUOTES // 2 - 1], "a" * LONGEST]
    chance.shuffle(quotes)
    started = time.perf_counter()
    finder = Finder(text)
    found = [finder.find(quote) for quote in quotes]
    seconds = time.perf_counter() - started
    verified = {quote for quote, result in zip(quotes, found, strict=True) if result.verified}
    measured = f"{seconds:.1f} s, {len(verified & set(real))} of {len(real)} real ones found"
    met = seconds < SECONDS and verified == set(real)
    return Row(f"finding {len(quotes)} quotes in {len(text) / 1e6:g} MB of text", f"under {SECONDS:g} s", measured, met)


def swapped(quote: str, chance: random.Random) -> str | None:
    """A word of it by another of its words."""
    words = [match for match in re.finditer(r"[A-Za-z]{4,}", quote)]
    if len(words) < 2:
        return None
    out, other = chance.sample(words, 2)
    return quote[: out.start()] + other[0] + quote[out.end() :]


def changed_number(quote: str, chance: random.Random) -> str | None:
    """By 3 to 8 %, or by one."""
    numbers = list(re.finditer(r"[0-9]+", quote))
    if not numbers:
        return None
    number = chance.choice(numbers)
    new = int(number[0]) + max(1, round(int(number[0]) * chance.uniform(0.03, 0.08)))
    return f"{quote[: number.start()]}{new}{quote[number.end() :]}"


def denied(quote: str, chance: random.Random) -> str | None:
    spaces = list(re.finditer(r"(?<=[a-z]) (?=[a-z])", quote))
    place = chance.choice(spaces).end() if spaces else 0
    return f"{quote[:place]}not {quote[place:]}" if place else None


def affirmed(quote: str, chance: random.Random) -> str | None:
    nots = list(re.finditer(r"\bnot\s+", quote, re.IGNORECASE))
    left_out = chance.choice(nots) if nots else None
    return quote[: left_out.start()] + quote[left_out.end() :] if left_out else None


ALTERATIONS: tuple[Alteration, ...] = (swapped, changed_number, denied, affirmed)


def bare(text: str) -> str:
    """Letters, digits and signs alone: how a quote is compared here, apart from the finder."""
    return re.sub(r"[\s-]", "", text.translate(STRAIGHT)).casefold()


STRAIGHT = str.maketrans({"\u2018": "'", "\u2019": "'", "\u201c": '"', "\u201d": '"'})


def reformatted(quote: str, chance: random.Random) -> str:
    """Wrapped to another width, every third line's last word hyphenated where it can be, with curly marks."""
    flat = re.sub(r'"([^"]*)"', "\u201c\\1\u201d", " ".join(quote.split())).replace("'", "\u2019")
    lines = textwrap.wrap(flat, chance.randint(30, 90), break_long_words=False, break_on_hyphens=False)
    for place in range(0, len(lines) - 1, 3):
        if word := re.search(r"(?<![\w-])[a-z]{6,}\Z", lines[place]):
            cut = chance.randint(2, len(word[0]) - 2)
            at = word.start() + cut
            lines[place], lines[place + 1] = f"{lines[place][:at]}-", f"{lines[place][at:]} {lines[place + 1]}"
    return "\n".join(lines)


def honesty(text: str, chance: random.Random) -> list[Row]:
    """Altered quotes that no other place of the text happens to hold, and the same ones reformatted."""
    finder, known = Finder(text), bare(text)
    drawn = slices(text, chance, 60, 400)
    passed = lost = wrong = 0
    for place in range(ALTERED):
        alter = ALTERATIONS[place % len(ALTERATIONS)]
        quote, altered = next(
            (quote, altered)
            for quote in drawn
            if (altered := alter(quote, chance)) is not None and bare(altered) not in known
        )
        passed += finder.find(altered).verified
        found = finder.find(reformatted(quote, chance))
        lost += not found.verified
        wrong += found.verified and bare(text[found.start : found.end]) != bare(quote)
    return [
        Row(f"{ALTERED} altered quotes", "none verified", f"{passed} verified", passed == 0),
        Row(
            f"{ALTERED} reformatted quotes",
            "all verified, their text matching",
            f"{ALTERED - lost} verified, {wrong} with another text",
            lost == wrong == 0,
        ),
    ]


def main() -> int:
    """Print the rows; the exit code is 1 when a target is missed."""
    parser = argparse.ArgumentParser(description="Measure how quotes are found in long texts.")
    parser.add_argument("--json", type=Path, help="write the rows here as well")
    parser.add_argument("--seed", type=int, default=0, help="of what is drawn")
    given = parser.parse_args()
    try:
        text = prose()
    except LaunchError as error:
        print(f"quotes: {error}", file=sys.stderr)
        return 1
    rows = [speed(text, random.Random(given.seed)), *honesty(text, random.Random(given.seed))]
    return report(rows, given.json)


if __name__ == "__main__":
    sys.exit(main())
