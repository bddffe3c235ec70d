"""Text for training the tokenizer: the tasks' own, tool and settings JSON, and ordinary English."""

import json
from collections.abc import Iterator
from random import Random

from sgl_small4.nano.tasks import arithmetic, chat, tools, words
from sgl_small4.nano.tasks.documents import KINDS, Document

ENGLISH = """\
A small model lives on a small machine. It reads what it is given, thinks for a while when it is asked to think,
and then says what it found. People who build such systems want to know how fast it is, how much memory it takes and
whether its answers are right. They start a server, send it a question and wait for the first word. When the server is
busy the request stands in a queue; when it is free the words come one after another. Every word that was read once
can be kept in a cache, so that the next question about the same document costs almost nothing.
We have tried to make the first steps simple. Install the package, run one command and open the page in a browser. If
anything is missing, the program will tell you what it is and how to get it. The output shows the time it took, the
number of tokens it used and the result. You can change the settings in a file: the name of the host, the port, the
length of the context, the number of requests that run at once. Do not change them while the server is running.
There are many reasons why something may go wrong. The file could be damaged, the network could be down, another user
might already have taken the port. Read the message first; it was written to help. Then look at the log, which has one
line for each event with its date and hour. Most problems have been seen before and their solution is known.
In the evening the old man would sit by the window and look at the water. He had worked there for more than thirty
years, and he knew every house and every boat. His daughter came on Sundays with bread, fruit and news from the city.
They talked about the weather, about prices, about friends who had moved away. Nothing much happened, and that was what
he liked about it. When the light was gone she lit the lamp, made some tea and read to him from a book.
This report describes the work of the last quarter. Sales went up by nine percent, mostly because of the new product
line. Costs were lower than expected. The team has grown from twelve to fifteen people; two of them work from abroad.
Our plan for next year is to open an office in the north, to train our own staff and to replace the heating system.
The contract between the company and its supplier ends in December and should be renewed before that. Questions about
this document can be sent to the manager. Which of these would you choose, and why? How should it be done? Where does
that leave us? Who will take care of it? What else do we need to know? I think that you are right, but I am not sure.
"""
REPEATS = 40  # of the English, so that ordinary words get merges beside the made-up ones


def texts(seed: int) -> Iterator[str]:
    """A few megabytes."""
    random = Random(seed)
    for at in range(3000):
        document = Document(random.getrandbits(40), 60, lambda text: len(text.split()), at % len(KINDS))
        yield document.text
        yield from ("\n".join(document.question()) for _ in range(4))
        for high in (True, False):
            yield "\n".join(arithmetic.turn(random, high, arithmetic.Share()))
        yield "\n".join(chat.turn(random))
        tool, call = tools.calculator(random), tools.call(random)
        if at % 3 == 0:  # more would spend the merges on what is the same in every prompt
            yield from (json.dumps({"reasoning_effort": effort}) for effort in ("high", "none"))
            yield json.dumps([tool.definition])
        yield json.dumps({tool.argument: call.expression})
        yield f"{call.question}\n{call.trace}\n{call.result}\n{call.closing_trace}"
    for _ in range(REPEATS):
        yield ENGLISH
        yield "\n".join(words.PROSE)
