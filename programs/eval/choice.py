"""Which option an answer settles on."""

import re
import unicodedata
from string import ascii_uppercase

_OPPOSITES = (("yes", "no"), ("true", "false"))  # of which a case need not list the other
_SAID = (
    r"(?:(?:answer|choice|option|antwort|réponse|respuesta)\b\W{0,4}(?:is|ist|est|es|be)?"
    r"|\b(?:choose|pick|select|go with)\b)\W{0,6}"
)
_GOES_ON = r"or|and|is|was|because|since|as|would|seems|fits"  # after a letter, where "a" and "I" would have others
# Not "A" before a small word, which is the article, nor "I" before one, which is the pronoun.
_ALONE = rf"(?:(?<![AI])|(?!\s+(?!(?:{_GOES_ON})\b)[a-z]))"
_NEGATION = re.compile(r"(?:\b(?:not|never|isn[’']t|rather than|instead of)|n[’']t)\s+(?:\w+\s+)?\W*$", re.IGNORECASE)


def chosen(answer: str, expected: str, choices: tuple[str, ...]) -> bool:
    """Whether `answer` settles on `expected`, a letter or an option's text, as whole words.

    A letter counts where it is the whole answer, in either case; where the answer begins with it as a label (`B)`,
    `B.`, `B:`) and labels no other; after words such as "the answer is"; or as the only capital of the options that
    stands alone. Text counts where it is the only one of the options that is named, in any case. An option after "not"
    is not chosen. An answer that names several options without settling chooses none. Without `choices`, letters are A
    to J.
    """
    answer, expected = _plain(answer), _plain(expected)
    texts = [_plain(text) for text in choices]
    is_letter = re.fullmatch(r"\(?[A-Za-z]\)?", expected) is not None
    if is_letter and expected.casefold() not in [text.casefold() for text in texts]:
        wanted = ascii_uppercase.index(expected.strip("()").upper())
    else:
        folded = [text.casefold() for text in texts]
        if expected.casefold() not in folded:
            texts = next(([*pair] for pair in _OPPOSITES if expected.casefold() in pair), [expected])
            folded = [text.casefold() for text in texts]
            return _text(answer, texts) == folded.index(expected.casefold())
        wanted = folded.index(expected.casefold())
    letters = ascii_uppercase[: len(texts) or max(10, wanted + 1)]
    # The text decides first: an option's text may itself hold a capital letter, as in "vitamin C".
    by_text = _text(answer, texts) if texts else None
    by_letter = _letter(answer, letters, texts)
    if by_letter is not None and by_text is not None and by_letter != by_text:
        return False  # "B) Paris" where Paris is A settles on nothing
    settled = by_letter if by_letter is not None else by_text
    return settled == wanted


def _plain(text: str) -> str:
    """In NFKC, without Markdown's emphasis, ends stripped."""
    return re.sub(r"[*`]|\\boxed|(?<!\w)_+|_+(?!\w)", "", unicodedata.normalize("NFKC", text)).strip()


def _letter(answer: str, letters: str, texts: list[str]) -> int | None:
    one = f"[{letters}]"
    if whole := re.fullmatch(rf"\W*({one})\W*", answer, re.IGNORECASE):
        return letters.index(whole[1].upper())
    end = r"(?=\s*(?:[.,;:!)\n]|$))"
    listed = rf"\s*(?:or|and|/|,)\s*\(?{one}\b"
    if said := _affirmed(rf"(?i:{_SAID})\(?(?:({one})\b(?!{listed}){_ALONE}|((?i:{one})){end})", answer):
        settled = {letter.upper() for letter in said}
        return letters.index(settled.pop()) if len(settled) == 1 else None
    masked = answer
    for text in sorted(texts, key=len, reverse=True):
        if len(text) > 1:
            masked = re.sub(rf"(?<!\w){re.escape(text)}(?!\w)", " ", masked, flags=re.IGNORECASE)
    alone = _affirmed(rf"(?<![\w'’.-])({one})(?![\w'’-]){_ALONE}", masked)
    labels = re.findall(rf"(?<![\w'’.-])({one})\s*[).:]", answer)
    if (label := re.match(rf"\W*({one})(?:\s*[).:]|\s*\n)", answer)) and not set(labels) - {label[1]}:
        return letters.index(label[1])
    return letters.index(alone[0]) if len(set(alone)) == 1 else None


def _text(answer: str, texts: list[str]) -> int | None:
    """The one option whose text is named; a longer one hides a shorter within it ("not guilty")."""
    named: set[int] = set()
    rest = answer
    for at in sorted(range(len(texts)), key=lambda at: -len(texts[at])):
        if not texts[at]:
            continue
        pattern = rf"(?<!\w){re.escape(texts[at])}(?!\w)"
        if any(not _negated(rest, match.start()) for match in re.finditer(pattern, rest, re.IGNORECASE)):
            named.add(at)
        rest = re.sub(pattern, lambda match: " " * len(match[0]), rest, flags=re.IGNORECASE)
    return named.pop() if len(named) == 1 else None


def _affirmed(pattern: str, answer: str) -> list[str]:
    """The letters that `pattern` finds, but for those after a negation."""
    found = []
    for match in re.finditer(pattern, answer):
        group = next(number for number, letter in enumerate(match.groups(), 1) if letter)
        if not _negated(answer, match.start(group)):
            found.append(match[group])
    return found


def _negated(answer: str, at: int) -> bool:
    return _NEGATION.search(answer[max(0, at - 60) : at]) is not None
