"""A service of `wasi:http` 0.3: asynchronous, and its answer begins before it is whole."""

import json

import componentize_py_async_support
import wit_world
from componentize_py_types import Ok
from wit_world import exports
from wit_world.imports.wasi_http_types import Fields, Request, Response


class Handler(exports.Handler):
    async def handle(self, request: Request) -> Response:
        if request.get_path_with_query() == "/throw":
            raise ValueError("as asked")
        done, told = wit_world.result_unit_wasi_http_types_error_code_future(lambda: Ok(None))
        body, _trailers = Request.consume_body(request, told)
        chunks = []
        with body:
            while not body.writer_dropped:
                chunks.append(await body.read(16 * 1024))
        said = json.loads(b"".join(chunks))
        answer = json.dumps({"madeBy": "python", "said": said}).encode()
        writer, reader = wit_world.byte_stream()
        ended, trailers = wit_world.result_option_wasi_http_types_fields_wasi_http_types_error_code_future(
            lambda: Ok(None)
        )
        headers = Fields.from_list([("content-type", b"application/json")])
        response, _sent = Response.new(headers, reader, trailers)
        componentize_py_async_support.spawn(write(writer, answer))
        return response


async def write(writer, answer):
    with writer:
        await writer.write_all(answer)
