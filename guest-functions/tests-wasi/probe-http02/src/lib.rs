//! The probe as a web service of `wasi:http` 0.2.

use pelton_guest_http::{Request, Response, serve};

serve!(answer);

fn answer(request: &Request) -> Response {
    Response::text(200, probe::answer(&request.body))
}
