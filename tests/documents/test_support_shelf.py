"""Which documents stand in the prompt of a conversation, when they do not fit together."""

import pytest

from programs.documents.document import Document
from programs.documents.shelf import Shelf


def words(text: str) -> int:
    """A token a word is all that choosing needs."""
    return len(text.split())


def document(name: str, *lines: str) -> Document:
    return Document(name, "text", "", "".join(f"{line}\n\n" for line in lines))


ABOUT = "These lines say nothing that anybody would ask for at all."
LAMPS = document("lamps.txt", *[ABOUT] * 6, "The lamp runs on two batteries.", *[ABOUT] * 6)
CHAIRS = document("chairs.txt", *[ABOUT] * 6, "A chair bears 120 kilograms.", *[ABOUT] * 6)
JAPAN = document("japan.txt", *[ABOUT] * 6, "保証期間は購入日から二年間です。", *[ABOUT] * 6)
ALL = (LAMPS, CHAIRS, JAPAN)
ROOM = 100


def test_what_fits_stands_there_whole_and_numbered_in_order():
    shelf = Shelf(ALL, 1000, words)
    choice = shelf.choose("lamp")
    assert shelf.fits and choice.left_out == () and choice.whole == 3
    assert choice.text == "\n\n".join(f"[{number}] {each.name}\n{each.text}" for number, each in enumerate(ALL, 1))
    assert shelf.choose("chair", ["lamp"], choice) is choice


@pytest.mark.parametrize(
    ("question", "passage"),
    [
        ("Which battery does it need?", "two batteries"),
        ("How many KILOGRAMS?", "120 kilograms"),
        ("ｋｉｌｏｇｒａｍｓ", "120 kilograms"),
        ("保証は何年ですか", "保証期間"),
        ("chairs.txt", "[1] chairs.txt"),
    ],
)
def test_a_question_finds_its_passage_in_other_forms_and_scripts(question, passage):
    choice = Shelf(ALL, ROOM, words).choose(question)
    assert passage in choice.text
    assert words(choice.text) <= ROOM and len(choice.left_out) == 3


def test_passages_that_do_not_follow_each_other_are_kept_apart_and_in_order():
    first, last = "The red key opens the door.", "The red key is in the drawer."
    shelf = Shelf((document("keys.txt", first, *[ABOUT] * 30, last), CHAIRS), ROOM, words)
    text = shelf.choose("red key drawer").text
    assert text.index(first) < text.index("(…)") < text.index(last)


def test_a_follow_up_is_read_with_the_questions_before_it():
    shelf = Shelf(ALL, 60, words)
    assert "120 kilograms" in shelf.choose("And for how long?", ["What does a chair bear?"]).text
    assert "120 kilograms" not in shelf.choose("And for how long?", ["What does the lamp need?"]).text


def test_a_choice_that_serves_is_kept_and_one_that_does_not_is_made_anew():
    shelf = Shelf(ALL, ROOM, words)
    first = shelf.choose("Which battery?")
    assert shelf.choose("batteries", ["Which battery?"], first) is first
    assert shelf.choose("?!", ["Which battery?"], first) is first
    second = shelf.choose("How many kilograms?", ["Which battery?"], first)
    assert second is not first and "120 kilograms" in second.text


def test_a_number_stays_with_its_document():
    shelf = Shelf(ALL, ROOM, words)
    first = shelf.choose("kilograms")
    second = shelf.choose("battery", (), first)
    assert first.numbered == (1,) and first.text.startswith("[1] chairs.txt")
    assert second.numbered[0] == 1 and "[2] lamps.txt" in second.text


@pytest.mark.parametrize("question", ["zebra", "", "\ud800", "?" * 10_000])
def test_a_question_whose_words_are_nowhere_reads_from_the_beginning(question):
    choice = Shelf(ALL, ROOM, words).choose(question)
    assert choice.text.startswith("[1] lamps.txt") and words(choice.text) <= ROOM


def test_texts_without_any_word_can_be_chosen_from():
    shelf = Shelf(tuple(document("!", *["?! ... !"] * 40) for _ in range(3)), 50, words)
    assert 0 < words(shelf.choose("What?").text) <= 50


def test_a_passage_that_no_room_holds_is_left_out_and_said():
    shelf = Shelf((document("a.txt", "word " * 300), CHAIRS), 60, words)
    choice = shelf.choose("word")
    assert words(choice.text) <= 60 and any(said.startswith("a.txt: not read") for said in choice.left_out)
