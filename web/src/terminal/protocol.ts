/** The client's side of `craftastic.v2`: frames to values and back, without any socket. */

export const SUBPROTOCOL = 'craftastic.v2';
export const MAX_INPUT_BYTES = 32 << 10;
/** The most bytes of one frame that the server sends: a snapshot with its header, and some room. */
export const MAX_FRAME_BYTES = 9 << 20;
const HEADER_BYTES = 9;
const OUTPUT = 1;
const SNAPSHOT = 2;
const INPUT = 1;
const ACKNOWLEDGE = 2;
const MAX_COLUMNS = 1000;
const MAX_ROWS = 500;

export type Size = { columns: number; rows: number };
export type Role = 'drive' | 'view';

/** Output of the stream; `first` is the number of its first byte. */
export type Output = { kind: 'output'; first: number; bytes: Uint8Array };
/** The whole screen; `following` is the number of the byte that comes after it. */
export type Snapshot = { kind: 'snapshot'; following: number; bytes: Uint8Array };
export type Control =
  | { kind: 'ready'; stream: string; size: Size; role: Role; resumed: boolean }
  | { kind: 'stream'; stream: string }
  | { kind: 'size'; size: Size }
  | { kind: 'request-resize' }
  | { kind: 'exit' }
  | { kind: 'error'; message: string }
  /** A message of a newer server: passed over. */
  | { kind: 'unknown' };
export type ServerFrame = Output | Snapshot | Control;

/** The server sent something that is not of the protocol. */
export class BadFrame extends Error {}

/** Output is missing between what was received and this frame; only a snapshot mends it. */
export class Gap extends Error {}

/** Turn a frame of the server's into a value. Throws `BadFrame` when it is none. */
export function decode(frame: ArrayBuffer | string): ServerFrame {
  return typeof frame === 'string' ? decodeControl(frame) : decodeBinary(frame);
}

function decodeBinary(frame: ArrayBuffer): Output | Snapshot {
  if (frame.byteLength < HEADER_BYTES) throw new BadFrame('a binary frame without its number');
  if (frame.byteLength > MAX_FRAME_BYTES) throw new BadFrame('a frame that is too big');
  const view = new DataView(frame);
  const number = Number(view.getBigUint64(1));
  if (!Number.isSafeInteger(number)) throw new BadFrame('a number that cannot be counted with');
  const bytes = new Uint8Array(frame, HEADER_BYTES);
  const kind = view.getUint8(0);
  if (kind === OUTPUT) return { kind: 'output', first: number, bytes };
  if (kind === SNAPSHOT) return { kind: 'snapshot', following: number, bytes };
  throw new BadFrame(`unknown kind of frame ${kind}`);
}

function decodeControl(frame: string): Control {
  let message: unknown;
  try {
    message = JSON.parse(frame);
  } catch {
    throw new BadFrame('a text frame that is not JSON');
  }
  if (typeof message !== 'object' || message === null) throw new BadFrame('a text frame without fields');
  const fields = message as Record<string, unknown>;
  switch (fields.type) {
    case 'ready':
      return {
        kind: 'ready',
        stream: text(fields.stream),
        size: size(fields),
        role: fields.role === 'view' ? 'view' : 'drive',
        resumed: fields.resumed === true,
      };
    case 'stream':
      return { kind: 'stream', stream: text(fields.stream) };
    case 'size':
      return { kind: 'size', size: size(fields) };
    case 'error':
      return { kind: 'error', message: text(fields.message) };
    case 'request-resize':
    case 'exit':
      return { kind: fields.type };
    default:
      return { kind: 'unknown' };
  }
}

function text(value: unknown): string {
  if (typeof value !== 'string') throw new BadFrame('a field that is no text');
  return value;
}

function size(fields: Record<string, unknown>): Size {
  const { cols, rows } = fields;
  if (!within(cols, MAX_COLUMNS) || !within(rows, MAX_ROWS)) throw new BadFrame('a size that cannot be');
  return { columns: cols, rows };
}

function within(value: unknown, most: number): value is number {
  return typeof value === 'number' && Number.isInteger(value) && value >= 1 && value <= most;
}

export function encodeInput(bytes: Uint8Array): Uint8Array<ArrayBuffer> {
  const frame = new Uint8Array(bytes.length + 1);
  frame[0] = INPUT;
  frame.set(bytes, 1);
  return frame;
}

/** Say that everything before the byte with this number was shown. */
export function encodeAcknowledge(following: number): Uint8Array<ArrayBuffer> {
  const frame = new Uint8Array(HEADER_BYTES);
  frame[0] = ACKNOWLEDGE;
  new DataView(frame.buffer).setBigUint64(1, BigInt(following));
  return frame;
}

/** Say the terminal's size, kept within what the protocol allows. */
export function encodeResize({ columns, rows }: Size): string {
  const cols = Math.min(Math.max(Math.floor(columns), 1), MAX_COLUMNS);
  return JSON.stringify({ type: 'resize', cols, rows: Math.min(Math.max(Math.floor(rows), 1), MAX_ROWS) });
}

export function encodeRole(role: Role): string {
  return JSON.stringify({ type: 'role', role });
}

export function sameSize(one: Size | null, other: Size | null): boolean {
  return one?.columns === other?.columns && one?.rows === other?.rows;
}

/** How far the stream was received; survives the connection. */
export class Position {
  stream: string | null = null;
  /** Number of the next byte wanted, or null while only a snapshot can go on. */
  following: number | null = null;

  /** Begin or go on with a stream; another one starts with a snapshot. */
  enter(stream: string): void {
    if (stream !== this.stream) {
      this.stream = stream;
      this.following = null;
    }
  }

  /** Want a snapshot next. */
  forget(): void {
    this.stream = null;
    this.following = null;
  }

  place(snapshot: Snapshot): void {
    this.following = snapshot.following;
  }

  /** Return what is new in a frame and move on. Throws `Gap` when bytes are missing before it. */
  take(output: Output): Uint8Array {
    if (this.following === null || output.first > this.following) {
      throw new Gap(`wanted byte ${this.following ?? 'after a snapshot'}, got ${output.first}`);
    }
    const fresh = output.bytes.subarray(this.following - output.first);
    this.following += fresh.length;
    return fresh;
  }

  /** What a connection says to go on here; empty when it wants a snapshot. */
  get query(): Record<string, string> {
    if (this.stream === null || this.following === null) return {};
    return { stream: this.stream, seen: String(this.following) };
  }
}
