/** The server's half of RFC 6455, as far as JSON text frames need it. Real sockets, no library. */

import { createHash } from "node:crypto";

const GUID = "258EAFA5-E914-47DA-95CA-C5AB0DC85B11";
const TEXT = 1;
const CLOSE = 8;

/** One accepted WebSocket. `onText(text)` for each message, `onEnd()` when it is over. */
export class ServerSocket {
  onText = () => {};
  onEnd = () => {};
  #buffer = Buffer.alloc(0);

  constructor(request, socket) {
    this.socket = socket;
    const key = createHash("sha1").update(request.headers["sec-websocket-key"] + GUID);
    const offered = (request.headers["sec-websocket-protocol"] ?? "").split(/,\s*/);
    const lines = [
      "HTTP/1.1 101 Switching Protocols",
      "Upgrade: websocket",
      "Connection: Upgrade",
      `Sec-WebSocket-Accept: ${key.digest("base64")}`,
      ...(offered[0] ? [`Sec-WebSocket-Protocol: ${offered[0]}`] : []),
    ];
    socket.setNoDelay(true);
    socket.write(`${lines.join("\r\n")}\r\n\r\n`);
    socket.on("data", (data) => this.#read(data));
    socket.on("close", () => this.onEnd());
    socket.on("error", () => {});
  }

  send(frame) {
    this.socket.write(encode(TEXT, Buffer.from(JSON.stringify(frame))));
  }

  /** Sends the first half of a frame's bytes, and then the network is gone. */
  sendHalfAndCut(frame) {
    const bytes = encode(TEXT, Buffer.from(JSON.stringify(frame)));
    this.socket.end(bytes.subarray(0, bytes.length / 2), () => this.cut());
  }

  close(code, reason = "") {
    const payload = Buffer.concat([Buffer.from([code >> 8, code & 255]), Buffer.from(reason)]);
    this.socket.end(encode(CLOSE, payload));
  }

  cut() {
    this.socket.destroy();
  }

  #read(data) {
    this.#buffer = Buffer.concat([this.#buffer, data]);
    for (let frame; (frame = decode(this.#buffer)); ) {
      this.#buffer = this.#buffer.subarray(frame.size);
      if (frame.opcode === TEXT) this.onText(frame.payload.toString());
      else if (frame.opcode === CLOSE) this.socket.end(encode(CLOSE, frame.payload));
    }
  }
}

function encode(opcode, payload) {
  const { length } = payload;
  const head = length < 126 ? Buffer.alloc(2) : Buffer.alloc(length < 65536 ? 4 : 10);
  head[0] = 0x80 | opcode;
  head[1] = length < 126 ? length : length < 65536 ? 126 : 127;
  if (head.length === 4) head.writeUInt16BE(length, 2);
  if (head.length === 10) head.writeBigUInt64BE(BigInt(length), 2);
  return Buffer.concat([head, payload]);
}

/** Clients mask: two bytes of head, the length, four bytes of mask, the payload. */
function decode(buffer) {
  if (buffer.length < 6) return null;
  const short = buffer[1] & 127;
  const start = short < 126 ? 2 : short === 126 ? 4 : 10;
  if (buffer.length < start + 4) return null;
  const length =
    short < 126 ? short : short === 126 ? buffer.readUInt16BE(2) : Number(buffer.readBigUInt64BE(2));
  const size = start + 4 + length;
  if (buffer.length < size) return null;
  const mask = buffer.subarray(start, start + 4);
  const payload = Buffer.from(buffer.subarray(start + 4, size).map((b, i) => b ^ mask[i % 4]));
  return { opcode: buffer[0] & 15, payload, size };
}
