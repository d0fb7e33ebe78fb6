"""A web function on asyncio: reads its body chunk by chunk and answers with the JSON that it found in it."""

import asyncio
import json

from componentize_py_types import Ok
from poll_loop import PollLoop, Sink, Stream
from wit_world import exports
from wit_world.imports.types import (
    Fields,
    IncomingRequest,
    OutgoingBody,
    OutgoingResponse,
    ResponseOutparam,
)


class IncomingHandler(exports.IncomingHandler):
    def handle(self, request: IncomingRequest, response_out: ResponseOutparam) -> None:
        loop = PollLoop()
        asyncio.set_event_loop(loop)
        loop.run_until_complete(answer(request, response_out))


async def answer(request: IncomingRequest, response_out: ResponseOutparam) -> None:
    if request.path_with_query() == "/throw":
        raise ValueError("as asked")
    stream = Stream(request.consume())
    chunks = []
    while (chunk := await stream.next()) is not None:
        chunks.append(chunk)
    said = json.loads(b"".join(chunks))
    body = json.dumps({"madeBy": "python", "said": said}).encode()
    response = OutgoingResponse(Fields.from_list([("content-type", b"application/json")]))
    sink = Sink(response.body())
    ResponseOutparam.set(response_out, Ok(response))
    await sink.send(body)
    sink.close()
