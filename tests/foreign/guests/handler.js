// A typed handler for QuickJS, which has the language and no web: bytes are turned into text by hand (ASCII here).
const text = (bytes) => Array.from(bytes, (byte) => String.fromCharCode(byte)).join("");
const bytes = (text) => Uint8Array.from(Array.from(text, (letter) => letter.charCodeAt(0)));

export const handler = {
  handle(execution, input) {
    const asked = JSON.parse(text(input.body));
    switch (asked.outcome) {
      case "error": return { tag: "error", val: { code: "JS_ERROR", message: "as asked" } };
      case "retry": return { tag: "retry", val: { code: "JS_RETRY", message: "as asked" } };
      case "requeue": return { tag: "requeue", val: 250n };
      case "throw": throw new Error("as asked");
    }
    const answer = { attempt: execution.attempt, function: execution.function, said: asked.said };
    return { tag: "success", val: { contentType: "application/json", body: bytes(JSON.stringify(answer)) } };
  },
};
