"""Numbers as lists write them: 1, a, A, i, I."""

ROMAN = ((100, "c"), (90, "xc"), (50, "l"), (40, "xl"), (10, "x"), (9, "ix"), (5, "v"), (4, "iv"), (1, "i"))


def numeral(number: int, form: str) -> str:
    """27 is aa among letters, as Word counts; what has no such form is written in digits."""
    if form in ("a", "A") and 1 <= number <= 780:
        letters = chr(ord("a") + (number - 1) % 26) * ((number - 1) // 26 + 1)
        return letters if form == "a" else letters.upper()
    if form in ("i", "I") and 1 <= number < 400:
        roman = ""
        for value, letters in ROMAN:
            roman += letters * (number // value)
            number %= value
        return roman if form == "i" else roman.upper()
    return str(number)
