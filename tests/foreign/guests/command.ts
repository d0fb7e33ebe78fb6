// A program: what it reads, it writes back in capitals.
const chunk = new Uint8Array(4096);
let text = "";
let read = process.stdin.read(chunk.buffer);
while (read > 0) {
  text += String.UTF8.decode(chunk.buffer.slice(0, read));
  read = process.stdin.read(chunk.buffer);
}
process.stderr.write("read " + text.length.toString() + "\n");
process.stdout.write(text.toUpperCase());
