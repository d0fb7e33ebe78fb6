// A typed handler for the JavaScript engine of browsers, which has the web's own tools at hand.
const decoder = new TextDecoder();
const encoder = new TextEncoder();

export const handler = {
  handle(execution, input) {
    const asked = JSON.parse(decoder.decode(input.body));
    if (asked.outcome === "requeue") return { tag: "requeue", val: 250n };
    if (asked.outcome === "throw") throw new Error("as asked");
    console.error(`attempt ${execution.attempt} of ${execution.maxAttempts}`);
    const answer = { madeBy: "starlingmonkey", said: asked.said, attempt: execution.attempt };
    return { tag: "success", val: { contentType: "application/json", body: encoder.encode(JSON.stringify(answer)) } };
  },
};
