// A web function as browsers' service workers are written.
addEventListener("fetch", (event) => event.respondWith(answer(event.request)));

async function answer(request) {
  const url = new URL(request.url);
  if (url.pathname === "/throw") throw new Error("as asked");
  if (url.pathname === "/refuse") {
    return Response.json({ error: "JS_REFUSED", message: "as asked" }, { status: 422 });
  }
  const body = { madeBy: "javascript", said: await request.json() };
  return new Response(JSON.stringify(body), { headers: { "content-type": "application/json" } });
}
