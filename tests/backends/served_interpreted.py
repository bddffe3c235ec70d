"""The served model's logits through the installed Triton backend, its kernels run by Triton's interpreter on a CPU.

A program of its own, like triton_interpreted.py: `TRITON_INTERPRET=1 python -m tests.backends.served_interpreted DIR`
with requests as JSON ([[ids, ends], ..]) on standard input; prints the logits after each piece as JSON.
"""

import json
import sys

from tests.model import served
from tests.model.served import Request


def main() -> None:
    requests = [Request(tuple(ids), tuple(ends)) for ids, ends in json.load(sys.stdin)]
    rows = served._run(sys.argv[1], requests, {"attention_backend": "triton", "dtype": "float32"})
    print(json.dumps([row.tolist() for row in rows]))


if __name__ == "__main__":
    main()
