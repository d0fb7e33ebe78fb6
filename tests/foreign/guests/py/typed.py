"""A typed handler: the world is Pelton's own."""

import json

from wit_world import exports
from wit_world.imports.types import Failure, Outcome_Error, Outcome_Success, Payload


class Handler(exports.Handler):
    def handle(self, execution, input):
        asked = json.loads(input.body)
        if "said" not in asked:
            return Outcome_Error(Failure("PY_ERROR", "nothing was said"))
        answer = {"madeBy": "python", "said": asked["said"], "attempt": execution.attempt}
        return Outcome_Success(Payload("application/json", json.dumps(answer).encode()))
