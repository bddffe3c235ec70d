"""Generated replies are the same for a seed, hold what they are to hold, and show a parser that is wrong."""

import json

import pytest
from mistral_common.tokens.tokenizers.base import SpecialTokens

from launch.bench import replies
from launch.bench.replies import Maker, compare
from sgl_small4.nano import CHECKPOINT
from sgl_small4.prompt.format import PromptFormat
from sgl_small4.prompt.parse import ReplyParser


@pytest.fixture(scope="module")
def nano() -> PromptFormat:
    return PromptFormat.from_folder(CHECKPOINT)


def test_every_reply_is_read_as_it_was_made(nano):
    assert [row.met for row in compare(nano, 150, seed=7)] == [True] * 4


def test_a_seed_gives_its_replies_again(nano):
    first, again, other = (list(Maker(nano, seed).replies(20)) for seed in (3, 3, 4))
    assert first == again != other


def test_replies_hold_what_they_are_to_hold(nano):
    made = list(Maker(nano, 1).replies(300))
    kinds = [[kind for kind, _, _ in reply.segments] for reply in made]
    assert any(kind.count("trace") > 1 for kind in kinds)
    assert any(kind.count("call") > 2 for kind in kinds)
    assert any(reply.opens_in == "trace" for reply in made)
    assert any(reply.stop for reply in made)
    assert any(text == "" and kind == "trace" for reply in made for kind, text, _ in reply.segments)
    assert any("[THINK]" in reply.answer and nano.control(SpecialTokens.begin_think) not in reply.ids for reply in made)
    assert any(reply.answer.endswith("\N{REPLACEMENT CHARACTER}") for reply in made)


class Forgetful(ReplyParser):
    """Loses a closing bracket when it comes alone."""

    def feed(self, ids):
        return [piece for piece in super().feed(ids) if piece.text != "]"]


def test_a_wrong_parser_is_found(nano, monkeypatch, capsys, tmp_path):
    monkeypatch.setattr(replies, "ReplyParser", Forgetful)
    assert [row.met for row in compare(nano, 150, seed=7)] == [False, True, True, True]
    assert "the parser fails for 1 token" in capsys.readouterr().err
    monkeypatch.setattr("sys.argv", ["replies", "--replies", "150", "--seed", "7", "--json", str(tmp_path / "rows")])
    assert replies.main() == 1
    assert json.loads((tmp_path / "rows").read_text())[0]["met"] is False
    monkeypatch.undo()
    monkeypatch.setattr("sys.argv", ["replies", "--replies", "20"])
    assert replies.main() == 0
