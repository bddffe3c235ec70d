"""A graph keeps what was run, counts it once, and shows it without obeying it."""

import copy
import itertools
import json
import os
import pickle
import sys
import threading
import time
from concurrent.futures import ThreadPoolExecutor
from dataclasses import replace
from html.parser import HTMLParser
from xml.etree import ElementTree

import pytest

from programs.errors import ProgramError
from programs.graph import LONGEST, Graph, Usage
from sgl_small4.prompt.node import Node

SVG = "{http://www.w3.org/2000/svg}"
HOSTILE = (
    "</pre></details><script>alert(1)</script><img src=x onerror=alert(2)> \x1b[31mred\x9b0m \x00\x07 \u202eesrever"
    " \u2066\ufeff \ud800 \ufffe ]]> &amp; {{ 7*7 }} \"'>"
)
HIDDEN = "\x1b\x9b\x00\x07\u202e\u2066\ufeff\ud800\ufffe"


def request(id: int, parent: int | None = None, **more) -> Node:
    given = dict(
        kind="generate",
        name=f"request {id}",
        prompt="What is 2+2?",
        text="4",
        trace=None,
        prompt_tokens=100,
        cached_tokens=60,
        completion_tokens=10,
        trace_tokens=7,
        began=0.1 * id,
        seconds=0.5,
        finish_reason="stop",
    )
    return Node(id=id, parent=parent, **{**given, **more})


def graph_of(*nodes: Node, question: str = "What is 2+2?") -> Graph:
    graph = Graph("deliberate", question)
    for node in nodes:
        graph.record(node)
    return graph


def forked() -> Graph:
    """A prefix, three branches with a check each, the last of them failed, and one that was cancelled."""
    graph = graph_of(request(0, kind="prefill"))
    for branch in range(1, 4):
        graph.record(request(branch, 0, trace="2 and 2 make 4"))
        graph.record(request(branch + 10, branch, kind="select", probability=0.9))
    graph.record(request(13, 3, kind="select", probability=0.9, finish_reason="error"))
    graph.record(request(4, 0, finish_reason="abort", text=""))
    graph.mark(4, "cancelled", "none: the vote is settled")
    graph.finish("4", "answered", 0.75)
    return graph


def drawn(graph: Graph) -> dict[int, tuple[float, float, float, float]]:
    """Left, top, right and bottom of each node's box."""
    boxes = {}
    for group in ElementTree.fromstring(graph.svg()).iter(f"{SVG}g"):
        x, y = map(float, group.attrib["transform"].removeprefix("translate(").removesuffix(")").split())
        box = next(group.iter(f"{SVG}rect"))
        boxes[int(group.attrib["data-id"])] = (
            x,
            y,
            x + float(box.attrib["width"]),
            y + float(box.attrib["height"]),
        )
    return boxes


class Page(HTMLParser):
    """What a browser would make of a page: its elements, and the text in each <pre>."""

    def __init__(self, html: str) -> None:
        super().__init__(convert_charrefs=True)
        self.elements: list[tuple[str, dict[str, str | None]]] = []
        self.passages: list[str] = []
        self.open: list[str] = []
        self.feed(html)
        self.close()

    def handle_starttag(self, tag, attrs):
        self.elements.append((tag, dict(attrs)))
        if tag not in ("meta", "rect", "path"):
            self.open.append(tag)
        if tag == "pre":
            self.passages.append("")

    def handle_startendtag(self, tag, attrs):
        self.elements.append((tag, dict(attrs)))

    def handle_endtag(self, tag):
        assert self.open.pop() == tag, "the page's elements are not nested"

    def handle_data(self, data):
        if "pre" in self.open:
            self.passages[-1] += data


@pytest.mark.parametrize(
    "graph",
    [Graph("none", ""), forked(), graph_of(request(0, text=HOSTILE, trace=HOSTILE, name=HOSTILE), question=HOSTILE)],
    ids=["empty", "forked", "hostile"],
)
def test_a_stored_graph_comes_back_whole(graph):
    stored = graph.to_dict()
    for back in (
        Graph.from_dict(stored),
        Graph.from_dict(json.loads(graph.json())),
        copy.deepcopy(graph),
        pickle.loads(pickle.dumps(graph)),
    ):
        assert back.to_dict() == stored
        assert (back.id, back.nodes, back.usage, back.outcome) == (graph.id, graph.nodes, graph.usage, graph.outcome)
        assert back.seconds == graph.seconds
        assert back.svg() == graph.svg()


def test_a_graph_that_came_back_can_go_on():
    back = Graph.from_dict(forked().to_dict())
    assert back.next_id() == 14
    assert back.clock() >= back.seconds


def test_stored_text_is_ascii_that_no_terminal_obeys():
    assert graph_of(request(0, text=HOSTILE)).json().isascii()
    assert "\x1b" not in graph_of(request(0, text=HOSTILE)).json()


def spoiled(**changes):
    return {**forked().to_dict(), **changes}


def spoiled_node(**changes):
    stored = forked().to_dict()
    stored["nodes"][0].update(changes)
    return stored


@pytest.mark.parametrize(
    ("stored", "named"),
    [
        (None, "dictionary"),
        ([], "dictionary"),
        ({"question": "What?"}, "version"),
        (spoiled(version=2), "version"),
        (spoiled(id="../../etc/passwd"), "id"),
        (spoiled(extra=1), "extra"),
        (spoiled(**{"\x1b[31m": 1}), "x1b"),
        (spoiled(usage={"requests": 1}), "usage"),
        (spoiled(nodes=forked().to_dict()["nodes"] * 2), "same id"),
        (spoiled_node(parent=11), "node 0"),
        (spoiled_node(kind="evil"), "kind"),
        (spoiled_node(prompt_tokens="100"), "prompt_tokens"),
        (spoiled_node(prompt_tokens=-1), "prompt_tokens"),
        (spoiled_node(seconds=float("nan")), "seconds"),
        (spoiled_node(text=b"4"), "text"),
    ],
)
def test_what_is_no_stored_graph_is_said_in_one_line_that_names_the_fault(stored, named):
    with pytest.raises(ProgramError) as refusal:
        Graph.from_dict(stored)
    assert named in str(refusal.value)
    assert str(refusal.value).isprintable()


def test_a_cancelled_request_is_counted_once():
    graph = graph_of(request(0), request(1, 0, finish_reason="abort", completion_tokens=0, trace_tokens=0))
    graph.mark(1, "cancelled")
    graph.record(request(1, 0, finish_reason="abort", completion_tokens=33, trace_tokens=33))
    assert graph.usage == Usage(200, 120, 43, 40, 2)
    assert graph.nodes[1].state == "cancelled"


def test_a_mark_on_a_running_request_holds_once_it_ends():
    graph = Graph("deliberate", "What is 2+2?")
    id = graph.next_id()
    graph.mark(id, "cancelled", "none: the vote is settled")
    assert graph.nodes == ()
    graph.record(request(id, finish_reason="abort"))
    assert (graph.nodes[0].state, graph.nodes[0].next_step) == ("cancelled", "none: the vote is settled")
    with pytest.raises(KeyError):
        graph.mark(1, "cancelled")


def test_two_requests_cannot_share_an_id_nor_go_on_from_a_later_one():
    graph = graph_of(request(0))
    with pytest.raises(ValueError, match="already"):
        graph.record(request(0, name="another"))
    with pytest.raises(ValueError, match="later"):
        graph.record(request(2, 2))


def test_nothing_is_lost_when_many_threads_record_at_once():
    graph = Graph("deliberate", "What is 2+2?")
    root = graph.next_id()
    graph.record(request(root))

    def branch(_: int) -> None:
        for _ in range(50):
            id = graph.next_id()
            graph.mark(id, "answered")
            graph.record(request(id, root))
            assert graph.usage.requests <= 801, "read while others write"

    interval = sys.getswitchinterval()
    sys.setswitchinterval(1e-6)
    try:
        with ThreadPoolExecutor(16) as pool:
            list(pool.map(branch, range(16)))
    finally:
        sys.setswitchinterval(interval)
    assert [node.id for node in graph.nodes] == list(range(801))
    assert graph.usage == Usage(80_100, 48_060, 8_010, 5_607, 801)
    assert all(node.state == "answered" for node in graph.nodes[1:])


def test_a_mark_set_while_its_request_is_being_recorded_is_not_lost(monkeypatch):
    graph = Graph("deliberate", "What is 2+2?")
    id = graph.next_id()
    recording = threading.Event()

    def slow(node, **changes):
        recording.set()
        time.sleep(0.1)
        return replace(node, **changes)

    monkeypatch.setattr("programs.graph.replace", slow)
    recorder = threading.Thread(target=graph.record, args=[request(id)])
    recorder.start()
    recording.wait()
    graph.mark(id, "cancelled")
    recorder.join()
    assert graph.nodes[0].state == "cancelled"


def test_seconds_run_until_the_answer_though_a_cancelled_branch_ends_later():
    graph = graph_of(request(0, began=0.0, seconds=2.0))
    assert graph.seconds == 2.0
    graph.finish("4", "answered", None)
    assert graph.seconds < 2.0
    graph.record(request(1, began=0.0, seconds=60.0, finish_reason="abort"))
    assert graph.seconds < 2.0


def test_a_probability_that_is_no_number_is_none():
    graph = graph_of(request(0, probability=float("nan")))
    graph.finish("4", "answered", float("nan"))
    assert "NaN" not in graph.json()
    assert Graph.from_dict(graph.to_dict()).nodes[0].probability is None


def test_the_branches_of_a_fork_stand_in_rows_of_their_own():
    boxes = drawn(forked())
    assert boxes.keys() == {0, 1, 2, 3, 4, 11, 12, 13}
    branches = [boxes[id] for id in (1, 2, 3, 4)]
    assert len({box[0] for box in branches}) == 1, "one column"
    assert all(above[3] < below[1] for above, below in itertools.pairwise(branches)), "one below the other"
    assert boxes[0][2] < branches[0][0] and branches[0][2] < boxes[11][0], "left to right by depth"
    assert boxes[11][1] == boxes[1][1], "what goes on from a branch stands in its row"


def test_no_two_boxes_overlap_in_an_uneven_tree():
    parents = [None, 0, 0, 1, 1, 1, 2, 6, 7, 7, 3, None, 11, 11, 11, 0, 2, 5, 5, None]
    boxes = drawn(graph_of(*(request(id, parent) for id, parent in enumerate(parents))))
    assert len(boxes) == len(parents)
    for one, other in itertools.combinations(boxes.values(), 2):
        assert one[2] < other[0] or other[2] < one[0] or one[3] < other[1] or other[3] < one[1]


def test_every_request_is_joined_to_the_one_it_goes_on_from():
    graph = forked()
    boxes = drawn(graph)
    ends = set()
    for path in ElementTree.fromstring(graph.svg()).iter(f"{SVG}path"):
        begin, _, end = path.attrib["d"].removeprefix("M").replace("C", " ").partition(" ")
        numbers = [float(begin), *map(float, end.split())]
        ends.add((*numbers[:2], *numbers[-2:]))
    middle = {id: (box[1] + box[3]) / 2 for id, box in boxes.items()}
    assert ends == {
        (boxes[node.parent][2], middle[node.parent], boxes[node.id][0], middle[node.id])
        for node in graph.nodes
        if node.parent is not None
    }


def test_a_box_says_what_its_request_was_and_cost():
    node = request(3, name="check", kind="select", text="yes", prompt_tokens=2031, cached_tokens=1015, probability=0.87)
    graph = graph_of(replace(node, state="unsure", next_step="think"))
    group = next(ElementTree.fromstring(graph.svg()).iter(f"{SVG}g"))
    said = [text.text for text in group.iter(f"{SVG}text")]
    assert said == [
        "#3 select",
        "check",
        "in 2,031, 1,015 cached",
        "out 10, 7 in the trace, 0.50 s",
        "stop, probability 0.87",
        "= yes",
        "unsure",
        "> think",
    ]
    track, filled = (float(rect.attrib["width"]) for rect in group.iter(f"{SVG}rect") if rect.attrib["height"] == "6")
    assert filled / track == pytest.approx(1015 / 2031, abs=0.01)


def test_cancelled_and_failed_requests_look_it():
    looks = {}
    for group in ElementTree.fromstring(forked().svg()).iter(f"{SVG}g"):
        said = " ".join(text.text or "" for text in group.iter(f"{SVG}text"))
        looks[int(group.attrib["data-id"])] = (next(group.iter(f"{SVG}rect")).attrib["class"], said)
    assert "dashed" in looks[4][0] and "cancelled (abort)" in looks[4][1]
    assert "stroke-failed" in looks[13][0] and "failed (error)" in looks[13][1]
    assert "dashed" not in looks[1][0] and "failed" not in looks[1][0]


def test_the_picture_and_the_page_are_the_same_each_time():
    graph = forked()
    assert graph.svg() == graph.svg()
    assert graph.html() == graph.html()


def test_every_colour_has_one_for_dark_pages():
    light, dark = forked().svg().split("@media (prefers-color-scheme: dark)")
    rules = {line.split("{")[0] for line in light.splitlines() if "fill:" in line or "stroke:" in line}
    assert rules == {line.split("{")[0] for line in dark.splitlines() if "fill:" in line or "stroke:" in line}
    assert ".graph .fill-page { fill: #ffffff; }" in light and ".graph .fill-page { fill: #0d1117; }" in dark


def test_texts_fit_their_boxes():
    wide = request(0, name="名" * 500, text="W" * 500, finish_reason="x" * 500, state="字" * 500, next_step="é" * 500)
    root = ElementTree.fromstring(graph_of(wide, question="q" * 10_000).svg())
    group = next(root.iter(f"{SVG}g"))
    right = float(next(group.iter(f"{SVG}rect")).attrib["width"])
    for text in group.iter(f"{SVG}text"):
        columns = sum(2 if character in "名字" else 1 for character in text.text)
        assert float(text.attrib["x"]) + columns * 0.602 * float(text.attrib["font-size"]) < right
    texts = [text for text in root.iter(f"{SVG}text")]
    assert all(len(text.text) < 200 for text in texts)


def hostile() -> Graph:
    graph = graph_of(
        request(0, name=HOSTILE, prompt=HOSTILE, text=HOSTILE, trace=HOSTILE, finish_reason=HOSTILE),
        question=HOSTILE,
    )
    graph.effort = HOSTILE
    graph.mark(0, HOSTILE, HOSTILE)
    graph.finish(HOSTILE, HOSTILE, None)
    return graph


def test_hostile_text_is_only_text_in_the_picture():
    svg = hostile().svg()
    root = ElementTree.fromstring(svg)
    elements = {element.tag.removeprefix(SVG) for element in root.iter()}
    assert elements == {"svg", "style", "rect", "clipPath", "g", "title", "text"}
    assert not set(svg) & set(HIDDEN)
    svg.encode()


def test_hostile_text_is_only_text_in_the_page():
    html = hostile().html()
    html.encode()
    assert not set(html) & set(HIDDEN)
    page = Page(html)
    assert not page.open
    assert {tag for tag, _ in page.elements}.isdisjoint({"script", "img", "link", "iframe", "object"})
    assert not [name for _, attributes in page.elements for name in attributes if name.startswith("on")]
    # Question, answer, and the node's prompt, trace and answer: readable, with what was hidden by its number.
    assert len(page.passages) == 5
    for passage in page.passages:
        assert "<script>alert(1)</script>" in passage
        assert "\\x1b[31mred\\x9b0m \\x00\\x07 \\u202eesrever \\u2066\\ufeff \\ud800 \\ufffe" in passage
        assert "&amp; {{ 7*7 }} \"'>" in passage


def test_the_page_loads_nothing():
    page = Page(forked().html())
    attributes = [(name, value) for _, each in page.elements for name, value in each.items()]
    assert ("content", "default-src 'none'; style-src 'unsafe-inline'") in attributes
    assert not [name for name, _ in attributes if name in ("src", "srcset", "data", "background")]
    links = {value for name, value in attributes if name == "href"}
    places = {f"#{value}" for name, value in attributes if name == "id"}
    assert links and links <= places, "links lead to places of the page"


def test_the_page_keeps_a_text_as_it_is():
    text = "\n  two spaces\n\n\tand a tab, naïve 日本語 مرحبا 👩\u200d🚀 $x^2$\n"
    passages = Page(graph_of(request(0, prompt=text)).html()).passages
    # HTML drops the one line feed that opens a <pre>; html.parser does not.
    assert "\n" + text in passages


def test_a_very_long_text_is_cut_where_a_reader_sees_how_much_is_missing():
    text = "start" + "x" * 1_000_000 + "end"
    began = time.monotonic()
    graph = graph_of(request(0, prompt=text, text=text, trace=text, name=text, finish_reason=text), question=text)
    html = graph.html()
    assert time.monotonic() - began < 5
    assert len(html) < 6 * LONGEST
    left_out = f"[… {len(text) - LONGEST:,} characters left out …]"
    for passage in Page(html).passages:
        assert passage.strip().startswith("start") and passage.strip().endswith("end")
        assert left_out in passage
        assert len(passage) < LONGEST + 100
    assert graph.to_dict()["nodes"][0]["prompt"] == text, "nothing is cut in what is stored"


@pytest.mark.parametrize(
    ("suffix", "beginning"),
    [(".json", b"{"), (".svg", b"<svg"), (".html", b"<!doctype html>"), (".png", b"\x89PNG"), (".SVG", b"<svg")],
)
def test_a_graph_is_saved_in_the_form_that_the_suffix_names(tmp_path, suffix, beginning):
    path = tmp_path / f"graph{suffix}"
    path.write_text("an older one")
    hostile().save(path)
    assert path.read_bytes().startswith(beginning)
    assert os.listdir(tmp_path) == [path.name]


def test_a_link_stays_a_link_when_saved_through(tmp_path):
    (tmp_path / "link.svg").symlink_to(tmp_path / "graph.svg")
    graph = forked()
    graph.save(str(tmp_path / "link.svg"))
    assert (tmp_path / "link.svg").is_symlink()
    assert (tmp_path / "graph.svg").read_text() == graph.svg()


@pytest.mark.parametrize("name", ["graph", "graph.gif", "graph.svg.gz", ".svg", ""])
def test_another_suffix_is_refused_with_those_there_are(tmp_path, name):
    with pytest.raises(ProgramError, match=r"\.json, \.svg, \.html, \.png"):
        forked().save(tmp_path / name)
    assert not os.listdir(tmp_path)


def test_a_place_that_cannot_be_written_is_named_and_left_as_it_was(tmp_path):
    (tmp_path / "folder.svg").mkdir()
    (tmp_path / "file").write_text("kept")
    for place in ("folder.svg", "missing/graph.svg", "file/graph.svg", "a\0b.svg", f"{'n' * 300}.svg"):
        with pytest.raises(ProgramError) as refusal:
            forked().save(tmp_path / place)
        assert str(tmp_path)[:20] in str(refusal.value)
        assert str(refusal.value).isprintable()
    assert sorted(os.listdir(tmp_path)) == ["file", "folder.svg"]
    assert (tmp_path / "file").read_text() == "kept"


def test_a_save_that_fails_half_way_keeps_the_older_file(tmp_path, monkeypatch):
    path = tmp_path / "graph.json"
    path.write_text("an older one")

    def full(*_):
        raise OSError(28, "No space left on device")

    monkeypatch.setattr(os, "replace", full)
    with pytest.raises(ProgramError, match="No space left on device"):
        forked().save(path)
    assert path.read_text() == "an older one"
    assert os.listdir(tmp_path) == ["graph.json"]


@pytest.mark.parametrize("shape", ["chain", "star"])
def test_five_hundred_requests_are_shown_in_a_moment(shape):
    parent = {"chain": lambda id: id - 1, "star": lambda id: 0}[shape]
    graph = graph_of(request(0), *(request(id, parent(id), prompt="word " * 2000) for id in range(1, 500)))
    began = time.monotonic()
    html = graph.html()
    assert time.monotonic() - began < 10
    assert html.count("<details>") == 500
    assert len(drawn(graph)) == 500


def test_a_very_large_picture_is_still_a_png(tmp_path):
    graph = graph_of(request(0), *(request(id, id - 1) for id in range(1, 60)))
    graph.save(tmp_path / "graph.png")
    content = (tmp_path / "graph.png").read_bytes()
    width, height = (int.from_bytes(content[at : at + 4], "big") for at in (16, 20))
    assert 20_000 < width <= 30_001 and height > 50
