"""What a quote and the text may differ in, rule by rule, each with what must not pass for it."""

import pytest

from programs.documents.find import Finder, Found


def found(text: str, quote: str) -> Found:
    result = Finder(text).find(quote)
    if result.grade != "absent":
        assert result.start is not None and 0 <= result.start < result.end <= len(text)
    return result


def stands(text: str, quote: str, passage: str, *rules: str) -> None:
    """The quote is found at the passage, by these rules and no other."""
    result = found(text, quote)
    assert (result.grade, result.rules) == ("folded" if rules else "exact", rules)
    assert text[result.start : result.end] == passage


def refused(text: str, quote: str) -> Found:
    result = found(text, quote)
    assert not result.verified
    return result


LEASE = "The tenant shall not sublet the flat. The rent is 940 euro, and the landlord may raise it by 3 % a year."


def test_what_stands_there_letter_by_letter_is_exact() -> None:
    stands(LEASE, "shall not sublet the flat.", "shall not sublet the flat.")


def test_every_passage_counts_once() -> None:
    assert found("ha ha ha ha ha", "ha ha").places == 2
    assert found("The fee.\nthe  fee. THE FEE.", "the fee").places == 3


def test_of_folded_passages_the_first_with_fewest_rules_is_shown() -> None:
    stands("THE\nFEE, the\nfee, the\nfee", "the fee", "the\nfee", "white space")


@pytest.mark.parametrize("quote", ["", " ", "\n\t", "\u200b", "\u00ad"])
def test_nothing_is_quoted_by_white_space(quote: str) -> None:
    assert found(LEASE + " \n\t \u200b \u00ad", quote) == Found("absent")


def test_nothing_stands_in_an_empty_text() -> None:
    assert found("", "The rent is 940 euro") == Found("absent")


# White space


def test_runs_of_white_space_are_one_space() -> None:
    stands(
        "The\nrent \t is\u00a0940\u2003euro",
        "The rent is 940 euro",
        "The\nrent \t is\u00a0940\u2003euro",
        "white space",
    )
    stands("zero\u200bwidth", "zerowidth", "zero\u200bwidth", "white space")
    stands(LEASE, "\n The rent ", "The rent", "white space")


@pytest.mark.parametrize(("text", "quote"), [("in finite time", "infinite time"), ("all ways", "always")])
def test_words_are_not_joined_nor_cut(text: str, quote: str) -> None:
    refused(text, quote)
    refused(quote, text)


def test_a_no_break_space_that_typesetting_puts_before_a_sign_is_nothing() -> None:
    stands("dit\u202f: oui", "dit: oui", "dit\u202f: oui", "white space")
    stands(
        "\u00ab\u00a0oui\u00a0\u00bb dit",
        '"oui" dit',
        "\u00ab\u00a0oui\u00a0\u00bb dit",
        "white space",
        "typographic form",
    )
    stands("3\u00a0% a year", "3% a year", "3\u00a0% a year", "white space")
    refused("10\u00a0000 euro", "10000 euro")


def test_a_line_break_between_chinese_characters_is_nothing() -> None:
    stands("本合同第\n十条规定", "合同第十条", "合同第\n十条", "white space")
    stands("使用\nPython编写", "使用Python编写", "使用\nPython编写", "white space")
    refused("本合同第 十条规定", "合同第十条")


# Hyphens


def test_a_line_end_hyphen_is_joined() -> None:
    stands("the respon-\nsibility of", "responsibility", "respon-\nsibility", "hyphen")
    stands("the respon-  \n   sibility of", "the responsibility", "the respon-  \n   sibility", "hyphen")
    stands("the re\u00adspon\u00adsibility", "responsibility", "re\u00adspon\u00adsibility", "hyphen")
    stands("the respon\u00ad\nsibility", "responsibility", "respon\u00ad\nsibility", "hyphen")
    stands("ge\u0301ne\u0301-\nral", "ge\u0301ne\u0301ral", "ge\u0301ne\u0301-\nral", "hyphen")


def test_a_line_end_hyphen_is_kept_where_the_quote_has_it() -> None:
    stands("a well-\nknown fact", "a well-known fact", "a well-\nknown fact", "hyphen")
    stands("part 77-\n1042 fits", "part 77-1042", "part 77-\n1042", "hyphen")
    stands("pre-\nand post-war", "pre- and post-war", "pre-\nand post-war", "white space")


@pytest.mark.parametrize(
    ("text", "quote"),
    [
        ("they re-sign it", "they resign it"),
        ("they resign it", "they re-sign it"),
        ("part 77-\n1042", "part 771042"),
        ("10-\n20 days", "1020 days"),
        ("a well-\nknown fact", "a well known fact"),
        ("use --force now", "use -force now"),
        ("it is 5 -\n3", "it is 53"),
    ],
)
def test_a_hyphen_that_means_something_stays(text: str, quote: str) -> None:
    assert refused(text, quote).grade == "different"


# Ligatures


def test_a_ligature_is_its_letters() -> None:
    stands("the o\ufb03ce \ufb01nds", "office finds", "o\ufb03ce \ufb01nds", "ligature")
    stands("the of fi ce", "the office", "the of fi ce", "ligature")
    stands("most e ffi cient", "most efficient", "most e ffi cient", "ligature")
    stands("we fi nd sti ff ones", "we find stiff ones", "we fi nd sti ff ones", "ligature")


@pytest.mark.parametrize(
    ("text", "quote"), [("of five cents", "offive cents"), ("the o\ufffdce is open", "the office is open")]
)
def test_letters_without_a_ligature_are_not_moved(text: str, quote: str) -> None:
    assert refused(text, quote).grade == "different"


# Typographic forms


@pytest.mark.parametrize(
    ("text", "quote"),
    [
        ("the tenant\u2019s \u201cflat\u201d", 'the tenant\'s "flat"'),
        ("\u00abflat\u00bb and \u2018room\u2019", "\"flat\" and 'room'"),
        ("a non\u2011breaking hyphen", "a non-breaking hyphen"),
        ("pages 3\u20135 \u2014 all", "pages 3-5 - all"),
        ("the rent \u2014 due", "the rent -- due"),
        ("at \u22125 degrees", "at -5 degrees"),
        ("and so on\u2026", "and so on..."),
        ("the cafe\u0301 is", "the caf\u00e9 is"),
        ("the caf\u00e9 is", "the cafe\u0301 is"),
        ("\ufeb3\ufefc\ufee1 here", "\u0633\u0644\u0627\u0645 here"),
        ("\uff21\uff22\uff23\uff11\uff12\uff13", "ABC123"),
        ("the **fee** is `due` now", "the fee is due now"),
        ("\uac00\ub098", "\u1100\u1161\u1102\u1161"),
    ],
)
def test_another_form_of_a_character_is_the_same(text: str, quote: str) -> None:
    stands(f"so {text} too", quote, text, "typographic form")


@pytest.mark.parametrize(
    "wrapped",
    ["“The rent is 940 euro”", "**The rent is 940 euro**", "`The rent is 940 euro`", "- The rent is 940 euro",
     '"*The rent is 940 euro*"', "_The rent is 940 euro_", "• The rent is 940 euro", "The **rent** is *940* euro",
     "«The rent is 940 euro»", "> The rent is 940 euro"],
)  # fmt: skip
def test_what_the_model_puts_around_a_quote_is_no_part_of_it(wrapped: str) -> None:
    stands(LEASE, wrapped, "The rent is 940 euro", "typographic form")


@pytest.mark.parametrize(
    ("text", "quote"),
    [
        ("an area of 10² here", "an area of 102 here"),
        ("about ½ of it", "about 1/2 of it"),
        ("the \u03b2 decay", "the beta decay"),
        ("page \u0663 of it", "page 3 of it"),
        ("the product 2*3 is", "the product 23 is"),
        ("char *pointer", "char pointer"),
        ("called __init__ here", "called init here"),
        ("5 degrees", "- 5 degrees"),
        ("snake_case name", "snakecase name"),
        ("the resume\u0301 of", "the resume of"),
    ],
)
def test_another_meaning_is_not_a_form(text: str, quote: str) -> None:
    refused(text, quote)


# Case


def test_case_is_folded_by_name() -> None:
    stands("THE RENT IS", "the rent is", "THE RENT IS", "case")
    stands("Hauptstraße 5", "HAUPTSTRASSE 5", "Hauptstraße 5", "case")
    stands("in İstanbul today", "in i\u0307stanbul today", "in İstanbul today", "case")
    refused("in İstanbul today", "in Istanbul tonight")


def test_rules_are_named_together() -> None:
    text = "The o\ufb03ce\u2019s RESPON-\nSIBILITY  \U0001f600 ends"
    quote = "office's responsibility \U0001f600 ends"
    stands(text, quote, text[4:], "white space", "hyphen", "ligature", "typographic form", "case")


# Borders of words and numbers


@pytest.mark.parametrize(
    ("text", "quote"),
    [
        ("it costs 940 euro", "it costs 94"),
        ("exactly 1,000 of them", "exactly 1"),
        ("version 1.5 here", "5 here"),
        ("at -5 degrees", "5 degrees"),
        ("at \u22125 degrees", "5 degrees"),
        ("worth .5 points", "5 points"),
        ("within 10-20 days", "20 days"),
        ("within 10\u201320 days", "20 days"),
        ("half is 1/2 of it", "half is 1"),
        ("10\u202f000 of them", "000 of them"),
        ("exactly 10\u00a0000", "exactly 10"),
        ("the area 10² is", "the area 10"),
        ("a non-refundable deposit", "refundable deposit"),
        ("a non-\nrefundable deposit", "refundable deposit"),
        ("a non\u00ad\nrefundable deposit", "refundable deposit"),
        ("a non\u00adrefundable deposit", "refundable deposit"),
        ("you can't sublet", "you can"),
        ("they are unlawful acts", "lawful acts"),
        ("the cafe\u0301", "the cafe"),
    ],
)
def test_a_quote_ends_where_words_and_numbers_do(text: str, quote: str) -> None:
    result = refused(text, quote)
    assert result.grade == "different" and "within a longer word or number" in result.hint


def test_a_cut_is_passed_over_for_a_whole_word_behind_it() -> None:
    text = "940 and 94"
    assert found(text, "94").start == 8


def test_punctuation_and_an_elided_article_are_borders() -> None:
    stands("(the rent)", "the rent", "the rent")
    stands("l\u2019autorité de", "autorité de", "autorité de")
    stands("The rent.Then", "rent", "rent")
    stands("in 1990\u00a020 of them", "in 1990", "in 1990")


@pytest.mark.parametrize(
    ("text", "quote", "start"),
    [
        ("\U0001f600本合同自签字之日起生效。", "合同", 2),
        ("\U0001f600この契約は日本法に従う。", "契約", 3),
        ("\U0001f600สัญญาเช่านี้มีผล", "เช่า", 6),
        ("\U0001f600ສັນຍາເຊົ່າ", "ຍາ", 4),
    ],
)
def test_scripts_without_spaces_have_borders_everywhere(text: str, quote: str, start: int) -> None:
    result = found(text, quote)
    assert (result.grade, result.start, result.end) == ("exact", start, start + len(quote))


def test_numbers_in_chinese_text_are_whole() -> None:
    stands("第10条规定", "10", "10")
    refused("第105条规定", "第10")


# What only comes near


@pytest.mark.parametrize(
    ("quote", "mine", "theirs"),
    [
        ("The tenant shall sublet the flat.", [], ["not"]),
        ("The rent is 970 euro, and the landlord may raise it", ["970"], ["940"]),
        ("The rent is 940 euro, and the landlord may always raise it", ["always"], []),
        ("The tenant shall not sublet the house.", ["house"], ["flat"]),
        (
            "The tenant shall not sublet the flat ... landlord may raise it",
            ["..."],
            [". The rent is 940 euro, and the"],
        ),
    ],
)
def test_a_changed_quote_is_shown_with_what_differs(quote: str, mine: list[str], theirs: list[str]) -> None:
    result = refused(LEASE, quote)
    assert result.grade == "different" and result.places == 0
    assert [piece.strip() for side, piece in result.difference if side == "quote"] == mine
    assert [piece.strip() for side, piece in result.difference if side == "source"] == theirs
    told = "".join(piece for side, piece in result.difference if side != "source")
    assert told.split() == quote.split()


def test_a_cut_number_is_shown_whole() -> None:
    result = refused("worth 1,234.56 in all", "234.56")
    assert result.difference == (("quote", "234.56"), ("source", "1,234.56 "))


def test_swapped_clauses_are_different() -> None:
    text = "If the rent is late, the landlord may end the lease, unless the tenant has paid a deposit."
    result = refused(text, "unless the tenant has paid a deposit, the landlord may end the lease if the rent is late")
    assert result.grade == "different"


def test_what_has_nothing_to_do_with_the_text_is_absent() -> None:
    for quote in ("Penguins breed in large colonies on the ice", "zzzz", "7", "企鹅在冰上繁殖"):
        assert refused(LEASE, quote).grade == "absent"


def test_a_changed_character_in_chinese_is_shown() -> None:
    result = refused("本合同自双方签字之日起生效,有效期三年。", "本合同自双方签字之日起生效,有效期五年。")
    assert ("quote", "五") in result.difference and ("source", "三") in result.difference


def test_units_that_another_case_makes_others_are_not_the_same() -> None:
    source = "It takes 5 mg at 300 K and 20 MW, sends 10 Mb/s over 3 km, and ends on 3 May at 5 pm."
    finder = Finder(source)
    for quote in ("5 Mg at 300 K", "20 mW", "at 300 k", "10 MB/s", "and 20 mw, sends"):
        assert not finder.find(quote).verified, quote
    for quote in ("It Takes 5 mg at 300 K", "ON 3 MAY AT 5 PM", "over 3 KM", "AND 20 MW, SENDS"):
        assert finder.find(quote).rules == ("case",), quote


def test_a_number_broken_at_a_line_end_is_not_found_by_its_second_half() -> None:
    finder = Finder("Order 77-\n1042 was paid on\n1042 days - or\n1043 - at most.")
    assert (finder.find("Order 77-1042").grade, finder.find("1042").places) == ("folded", 1)
    assert finder.find("1042 days").verified and finder.find("1043").verified
    assert not finder.find("1042 was paid").verified
