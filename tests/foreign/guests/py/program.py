"""A program of WASI 0.2: CPython with the standard library, standard input and output and an exit code."""

import json
import os
import sys

from wit_world import exports


class Run(exports.Run):
    def run(self) -> None:
        asked = json.load(sys.stdin)
        if asked.get("fail"):
            print("as asked", file=sys.stderr)
            sys.exit(asked["fail"])
        print(json.dumps({"madeBy": "python", "sum": sum(asked["numbers"]), "attempt": os.environ["ATTEMPT"]}))
