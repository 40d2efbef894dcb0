/** For tests: a clock that is moved by hand, and a server of the protocol with a real ring's rules. */

import type { Clock, ConnectionState, Screen, Socket, Timer } from './connection';
import { Connection } from './connection';
import type { Role, Size } from './protocol';

/** Numbers in [0, 1) that are the same for the same seed (mulberry32). */
export function randomOf(seed: number): () => number {
  let state = seed;
  return () => {
    state = (state + 0x6d2b79f5) | 0;
    let mixed = Math.imul(state ^ (state >>> 15), state | 1);
    mixed ^= mixed + Math.imul(mixed ^ (mixed >>> 7), mixed | 61);
    return ((mixed ^ (mixed >>> 14)) >>> 0) / 2 ** 32;
  };
}

export class FakeClock implements Clock {
  private time = 0;
  private next = 1;
  private readonly timers = new Map<number, { at: number; what: () => void }>();

  now(): number {
    return this.time;
  }

  after(ms: number, what: () => void): Timer {
    const id = this.next++;
    this.timers.set(id, { at: this.time + ms, what });
    return id;
  }

  cancel(timer: Timer): void {
    this.timers.delete(timer as number);
  }

  get waiting(): number {
    return this.timers.size;
  }

  /** Let time pass; what is due runs in order, with the promises it makes. */
  async pass(ms: number): Promise<void> {
    const end = this.time + ms;
    for (;;) {
      await settled();
      const due = [...this.timers].filter(([, one]) => one.at <= end).sort((a, b) => a[1].at - b[1].at)[0];
      if (due === undefined) break;
      this.timers.delete(due[0]);
      this.time = Math.max(this.time, due[1].at);
      due[1].what();
    }
    this.time = end;
  }
}

export async function settled(): Promise<void> {
  for (let turn = 0; turn < 5; turn++) await Promise.resolve();
}

function frame(kind: number, number: number, bytes: Uint8Array): ArrayBuffer {
  const made = new Uint8Array(9 + bytes.length);
  made[0] = kind;
  new DataView(made.buffer).setBigUint64(1, BigInt(number));
  made.set(bytes, 9);
  return made.buffer;
}

/** The server's end of one connection. Frames stay on the way until `deliver`. */
export class FakeSocket implements Socket {
  readyState = 0;
  bufferedAmount = 0;
  onopen: Socket['onopen'] = null;
  onmessage: Socket['onmessage'] = null;
  onclose: Socket['onclose'] = null;
  /** Which byte is sent next, or null before a snapshot. */
  sent: number | null = null;
  acknowledged: number | null = null;
  role: Role = 'drive';
  readonly texts: string[] = [];
  private way: (ArrayBuffer | string)[] = [];

  constructor(
    readonly url: URL,
    private readonly server: FakeServer,
  ) {}

  send(data: Uint8Array<ArrayBuffer> | string): void {
    if (this.readyState === 0) throw new Error('the socket is not open');
    if (this.readyState > 1) return;
    if (typeof data === 'string') this.texts.push(data);
    else if (data[0] === 1) this.server.typed.push(...data.subarray(1));
    else this.acknowledged = Number(new DataView(data.buffer).getBigUint64(1));
    if (data instanceof Uint8Array && data[0] === 1) this.server.inputFrames.push(data.length - 1);
  }

  close(): void {
    this.readyState = 3;
    this.server.sockets.delete(this);
  }

  put(value: ArrayBuffer | string): void {
    this.way.push(value);
  }

  /** Bring the client what is on the way, or a part of it. */
  deliver(most = Infinity): void {
    for (let count = 0; count < most; count++) {
      const next = this.way.shift();
      if (next === undefined || this.readyState !== 1) return;
      this.onmessage?.({ data: next });
    }
  }

  open(): void {
    this.readyState = 1;
    this.onopen?.();
  }

  /** The end of the connection; what was on the way is lost. */
  end(code = 1006, reason = ''): void {
    if (this.readyState === 3) return;
    this.readyState = 3;
    this.way = [];
    this.server.sockets.delete(this);
    this.onclose?.({ code, reason });
  }
}

/** One terminal whose output is kept whole, and a ring of its last bytes. */
export class FakeServer {
  output: number[] = [];
  /** What came before the stream's first byte: a restarted server counts from zero. */
  base = 0;
  stream = 'stream-1';
  typed: number[] = [];
  inputFrames: number[] = [];
  size: Size = { columns: 80, rows: 24 };
  readonly sockets = new Set<FakeSocket>();
  opened: FakeSocket[] = [];

  constructor(public ring = 200) {}

  open(url: string): FakeSocket {
    const socket = new FakeSocket(new URL(url), this);
    this.sockets.add(socket);
    this.opened.push(socket);
    return socket;
  }

  get last(): FakeSocket {
    const socket = this.opened.at(-1);
    if (socket === undefined) throw new Error('nobody connected');
    return socket;
  }

  print(...bytes: number[]): void {
    this.output.push(...bytes);
  }

  /** Accept a connection: say ready, resumed when the ring still holds what is wanted. */
  accept(socket: FakeSocket): void {
    socket.open();
    const seen = socket.url.searchParams.get('seen');
    const same = socket.url.searchParams.get('stream') === this.stream;
    const number = seen === null ? -1 : Number(seen);
    const end = this.output.length - this.base;
    const resumed = same && number >= Math.max(end - this.ring, 0) && number <= end;
    socket.sent = resumed ? number : null;
    const { columns: cols, rows } = this.size;
    socket.put(JSON.stringify({ type: 'ready', stream: this.stream, cols, rows, role: 'drive', resumed }));
    socket.put('{"type":"request-resize"}');
  }

  /** Put what is new on the way, as frames of at most `most` bytes; a snapshot when the ring ran over. */
  pump(socket: FakeSocket, most = 50): void {
    if (socket.readyState !== 1) return;
    const end = this.output.length - this.base;
    if (socket.sent === null || end - socket.sent > this.ring) {
      socket.put(frame(2, end, new Uint8Array(this.output)));
      socket.sent = end;
    }
    while (socket.sent < end) {
      const stop = Math.min(socket.sent + most, end);
      const bytes = this.output.slice(this.base + socket.sent, this.base + stop);
      socket.put(frame(1, socket.sent, new Uint8Array(bytes)));
      socket.sent = stop;
    }
  }

  /** The server's process ends and a new one starts: another stream, counted from zero. */
  restart(): void {
    for (const socket of [...this.sockets]) socket.end();
    this.stream = `stream-${Number(this.stream.slice(7)) + 1}`;
    this.base = this.output.length;
  }
}

/** An emulator that keeps bytes, and shows them when it is told to. */
export class FakeScreen implements Screen {
  bytes: number[] = [];
  sizes: Size[] = [];
  private queue: (() => void)[] = [];

  replace(bytes: Uint8Array, shown: () => void): void {
    const kept = [...bytes];
    this.queue.push(() => {
      this.bytes = kept;
      shown();
    });
  }

  write(bytes: Uint8Array, shown: () => void): void {
    const kept = [...bytes];
    this.queue.push(() => {
      this.bytes.push(...kept);
      shown();
    });
  }

  resize(size: Size): void {
    this.queue.push(() => this.sizes.push(size));
  }

  show(most = Infinity): void {
    for (let count = 0; count < most; count++) {
      const next = this.queue.shift();
      if (next === undefined) return;
      next();
    }
  }
}

export type World = {
  connection: Connection;
  clock: FakeClock;
  server: FakeServer;
  screen: FakeScreen;
  states: ConnectionState[];
  held: number[];
  sizes: [Size, boolean][];
  /** What the sign-in says next: a token, nobody, or a failure. */
  sign: { token: string | null; fails: boolean; renewed: number; visible: boolean };
};

export function world(seed = 1, role: Role = 'drive', ring = 200): World {
  const clock = new FakeClock();
  const server = new FakeServer(ring);
  const screen = new FakeScreen();
  const states: ConnectionState[] = [];
  const held: number[] = [];
  const sizes: [Size, boolean][] = [];
  const sign: World['sign'] = { token: 'token', fails: false, renewed: 0, visible: true };
  const connection = new Connection({
    url(position, renew) {
      if (renew) sign.renewed += 1;
      if (sign.fails) return Promise.reject(new Error('no network'));
      if (sign.token === null) return Promise.resolve(null);
      const query = new URLSearchParams({ ...position.query, token: sign.token });
      return Promise.resolve(`ws://server/terminal?${query.toString()}`);
    },
    open: (url) => server.open(url),
    clock,
    random: randomOf(seed),
    screen,
    role,
    mayClaimSize: () => sign.visible,
    onState: (state) => states.push(state),
    onHeld: ({ bytes }) => held.push(bytes),
    onSize: (size, own) => sizes.push([size, own]),
  });
  return { connection, clock, server, screen, states, held, sizes, sign };
}
