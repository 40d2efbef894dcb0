/**
 * One session's terminal over however many connections it takes: every byte is shown once and in
 * order, what is typed during a cut is held and sent after it. Knows no DOM: the socket, the clock
 * and the screen are given.
 */

import {
  BadFrame,
  Gap,
  MAX_INPUT_BYTES,
  Position,
  decode,
  encodeAcknowledge,
  encodeInput,
  encodeResize,
  encodeRole,
  sameSize,
  type Control,
  type Role,
  type Size,
  type Snapshot,
} from './protocol';
import { Judge, LOST, type Verdict } from './verdict';

/** What is typed during a cut is kept up to this many bytes; more is refused. */
export const MAX_HELD_BYTES = 64 << 10;
/** What may wait in the browser for a slow line; more is refused. */
export const MAX_UNSENT_BYTES = 4 << 20;
export const OPEN_TIMEOUT_MS = 15_000;
const ACKNOWLEDGE_BYTES = 64 << 10;
const ACKNOWLEDGE_MS = 100;
/** A size of the server's that our own newer one is about to overtake is not shown for so long. */
export const SIZE_GRACE_MS = 700;
/** A try that goes on for this long is given up for a new one when there is reason for hope. */
const LONG_TRY_MS = 2000;
const BYE = 1000;
const OPEN = 1;

/** The part of a WebSocket that is used. */
export type Socket = {
  readonly readyState: number;
  readonly bufferedAmount: number;
  onopen: (() => void) | null;
  onmessage: ((event: { data: ArrayBuffer | string }) => void) | null;
  onclose: ((event: { code: number; reason: string }) => void) | null;
  send(frame: Uint8Array<ArrayBuffer> | string): void;
  close(code?: number): void;
};

export type Timer = unknown;
export type Clock = {
  now(): number;
  after(ms: number, what: () => void): Timer;
  cancel(timer: Timer): void;
};

/** The emulator. Everything given to it takes effect in the order of the calls. */
export type Screen = {
  /** Forget everything shown, then show this. */
  replace(bytes: Uint8Array, shown: () => void): void;
  write(bytes: Uint8Array, shown: () => void): void;
  resize(size: Size): void;
};

export type ConnectionState =
  | { kind: 'connecting' }
  | { kind: 'live' }
  /** `retryAt` is on the clock of `Clock.now`, or null while a try is under way. */
  | { kind: 'reconnecting'; retryAt: number | null; reason: string }
  | { kind: 'refused'; reason: string; final: boolean }
  | { kind: 'signed-out' }
  | { kind: 'ended' }
  | { kind: 'closed' };

export type Held = { pieces: number; bytes: number };
/** What came of what was typed. */
export type Typed = 'sent' | 'held' | 'full' | 'closed';

export type ConnectionParts = {
  /** Return the address to connect to, or null when nobody is signed in. */
  url(position: Position, renew: boolean): Promise<string | null>;
  open(url: string): Socket;
  clock: Clock;
  random(): number;
  screen: Screen;
  role: Role;
  /** Whether this page may take the terminal's size: a hidden one leaves it to others. */
  mayClaimSize(): boolean;
  onState(state: ConnectionState): void;
  onHeld(held: Held): void;
  /** The terminal's size was given by this page (`own`) or by another viewer. */
  onSize(size: Size, own: boolean): void;
};

export class Connection {
  state: ConnectionState = { kind: 'connecting' };
  readonly position = new Position();
  private readonly judge: Judge;
  private socket: Socket | null = null;
  private attached = false;
  private attempt = 0;
  private openedAt = 0;
  private openTimer: Timer = null;
  private retryTimer: Timer = null;
  private renew = false;
  private everLive = false;

  private held: Uint8Array[] = [];
  private heldBytes = 0;

  /** Everything before this byte was shown, in stream `shownIn`. */
  private shown = 0;
  private shownIn: string | null = null;
  private acknowledged = 0;
  private acknowledgeTimer: Timer = null;

  private wanted: Size | null = null;
  private current: Size | null = null;
  private claimed = false;
  private claimedAt = -Infinity;
  private pendingSize: Size | null = null;
  private sizeTimer: Timer = null;

  constructor(private readonly parts: ConnectionParts) {
    this.judge = new Judge(() => parts.random());
  }

  /** Connect for the first time. */
  start(): void {
    void this.connect();
  }

  /**
   * Connect now: the person asked for it, or came back to the page. Nothing while live or ended.
   * With `anew` a try that is under way is given up: it began without a network.
   */
  retryNow(anew = false): void {
    if (this.state.kind !== 'reconnecting') return;
    const trying = this.state.retryAt === null;
    if (trying && !anew && this.parts.clock.now() - this.openedAt < LONG_TRY_MS) return;
    this.judge.hope();
    void this.connect();
  }

  /** Start again after an end, a refusal or a sign-in: the server revives a dead session. */
  revive(): void {
    if (!['ended', 'refused', 'signed-out'].includes(this.state.kind)) return;
    this.judge.hope();
    this.everLive = false;
    void this.connect();
  }

  /** The network is gone (or the machine slept): do not wait until the browser notices. */
  suspect(reason: string): void {
    if (this.socket === null) return;
    this.abandon();
    this.lost({ next: 'reconnect', waitMs: 250, reason });
  }

  /** End for good. */
  close(): void {
    this.abandon();
    this.attempt += 1;
    this.cancelTimers();
    this.drop();
    this.become({ kind: 'closed' });
  }

  /** Type; all of it or nothing. One call is one frame unless it is too long for one. */
  type(bytes: Uint8Array): Typed {
    if (this.parts.role === 'view' || bytes.length === 0) return 'closed';
    // A socket that is closing drops what it is given, without a word.
    if (this.attached && this.socket?.readyState === OPEN) {
      if (this.socket.bufferedAmount + bytes.length > MAX_UNSENT_BYTES) return 'full';
      this.sendInput(bytes);
      return 'sent';
    }
    if (!['connecting', 'reconnecting', 'live'].includes(this.state.kind)) return 'closed';
    if (this.heldBytes + bytes.length > MAX_HELD_BYTES) return 'full';
    this.held.push(bytes.slice());
    this.heldBytes += bytes.length;
    this.tellHeld();
    return 'held';
  }

  /** Forget what is held. */
  drop(): void {
    if (this.held.length === 0) return;
    this.held = [];
    this.heldBytes = 0;
    this.tellHeld();
  }

  /** Say which size fits this page's window. */
  fit(size: Size): void {
    if (sameSize(size, this.wanted)) return;
    this.wanted = size;
    if (this.parts.mayClaimSize()) this.claim();
  }

  /** Take the terminal's size: this window is the one that is used now. */
  claim(): void {
    if (this.wanted === null || this.parts.role === 'view') return;
    if (sameSize(this.wanted, this.current) && this.pendingSize === null && this.attached) return;
    this.setSize(this.wanted);
    this.sendSize();
  }

  // Connecting.

  private async connect(): Promise<void> {
    this.cancelTimers();
    this.abandon();
    const attempt = ++this.attempt;
    const again: ConnectionState = { kind: 'reconnecting', retryAt: null, reason: this.reason() };
    this.become(this.everLive ? again : { kind: 'connecting' });
    const renew = this.renew;
    this.renew = false;
    this.openedAt = this.parts.clock.now();
    let url: string | null;
    try {
      url = await this.parts.url(this.position, renew);
    } catch {
      if (attempt !== this.attempt) return;
      this.renew = renew;
      this.over(LOST, '');
      return;
    }
    if (attempt !== this.attempt) return;
    if (url === null) {
      this.lost({ next: 'signed-out' });
      return;
    }
    this.listen(this.parts.open(url));
  }

  private listen(socket: Socket): void {
    this.socket = socket;
    this.openTimer = this.parts.clock.after(OPEN_TIMEOUT_MS, () => {
      this.abandon();
      this.over(LOST, 'The server does not answer');
    });
    socket.onopen = () => this.greet(socket);
    socket.onmessage = (event) => this.receive(event.data);
    socket.onclose = (event) => {
      this.forgetSocket();
      this.over(event.code, event.reason);
    };
  }

  private greet(socket: Socket): void {
    if (this.parts.role === 'view') socket.send(encodeRole('view'));
    else if (this.parts.mayClaimSize()) this.sendSize();
  }

  private over(code: number, reason: string): void {
    this.lost(this.judge.judge(code, reason, this.parts.clock.now() - this.openedAt));
  }

  private lost(verdict: Verdict): void {
    this.cancelTimers();
    switch (verdict.next) {
      case 'sign-in':
        this.renew = true;
        void this.connect();
        return;
      case 'reconnect':
        this.wait(verdict.waitMs, verdict.reason);
        return;
      case 'refused':
        this.drop();
        this.become({ kind: 'refused', reason: verdict.reason, final: verdict.final });
        return;
      case 'signed-out':
      case 'ended':
        this.drop();
        this.become({ kind: verdict.next });
    }
  }

  private wait(ms: number, reason: string): void {
    this.everLive = true;
    const { clock } = this.parts;
    this.become({ kind: 'reconnecting', retryAt: clock.now() + ms, reason });
    this.retryTimer = clock.after(ms, () => void this.connect());
  }

  private reason(): string {
    return this.state.kind === 'reconnecting' ? this.state.reason : '';
  }

  /** Let go of the socket; nothing that it still says counts. */
  private abandon(): void {
    const socket = this.socket;
    this.forgetSocket();
    if (socket === null) return;
    socket.onopen = socket.onmessage = socket.onclose = null;
    socket.close(BYE);
  }

  private forgetSocket(): void {
    this.socket = null;
    this.attached = this.claimed = false;
  }

  private cancelTimers(): void {
    const { clock } = this.parts;
    for (const timer of [this.openTimer, this.retryTimer, this.acknowledgeTimer, this.sizeTimer]) {
      if (timer !== null) clock.cancel(timer);
    }
    this.openTimer = this.retryTimer = this.acknowledgeTimer = this.sizeTimer = null;
    this.pendingSize = null;
  }

  private become(state: ConnectionState): void {
    this.state = state;
    this.parts.onState(state);
  }

  // What the server says.

  private receive(frame: ArrayBuffer | string): void {
    try {
      const value = decode(frame);
      if (value.kind === 'output') {
        const bytes = this.position.take(value);
        const following = value.first + value.bytes.length;
        if (bytes.length > 0) this.parts.screen.write(bytes, this.showing(following));
      } else if (value.kind === 'snapshot') {
        this.replace(value);
      } else {
        this.obey(value);
      }
    } catch (error) {
      if (!(error instanceof BadFrame) && !(error instanceof Gap)) throw error;
      // Only a snapshot mends it, and a new connection that names no stream brings one.
      this.position.forget();
      this.abandon();
      this.over(LOST, 'Something was lost on the way');
    }
  }

  private replace(snapshot: Snapshot): void {
    // A snapshot is made for the size that was told last.
    this.settleSize();
    this.position.place(snapshot);
    this.parts.screen.replace(snapshot.bytes, this.showing(snapshot.following));
  }

  private obey(control: Control): void {
    switch (control.kind) {
      case 'ready':
        this.ready(control.stream, control.size, control.resumed);
        return;
      case 'stream':
        this.position.enter(control.stream);
        return;
      case 'size':
        this.told(control.size);
        return;
      case 'request-resize':
        if (this.parts.mayClaimSize()) this.sendSize();
        return;
      default: // an error or an end: the close frame that follows says what to do
    }
  }

  private ready(stream: string, size: Size, resumed: boolean): void {
    if (this.openTimer !== null) this.parts.clock.cancel(this.openTimer);
    this.openTimer = null;
    if (!resumed) this.position.forget();
    this.position.enter(stream);
    this.judge.attached();
    this.everLive = true;
    this.attached = true;
    // From its first acknowledgement on the server sends no more than we can show.
    this.acknowledged = resumed && this.shownIn === stream ? this.shown : 0;
    this.socket?.send(encodeAcknowledge(this.acknowledged));
    // Told before the server knew ours: it says so again when ours does not come to count.
    if (!this.claimed) this.told(size);
    this.become({ kind: 'live' });
    this.release();
  }

  private release(): void {
    const held = this.held;
    this.held = [];
    this.heldBytes = 0;
    for (const piece of held) this.sendInput(piece);
    if (held.length > 0) this.tellHeld();
  }

  private sendInput(bytes: Uint8Array): void {
    for (let start = 0; start < bytes.length; start += MAX_INPUT_BYTES) {
      this.socket?.send(encodeInput(bytes.subarray(start, start + MAX_INPUT_BYTES)));
    }
  }

  private tellHeld(): void {
    this.parts.onHeld({ pieces: this.held.length, bytes: this.heldBytes });
  }

  // Acknowledging what was shown.

  private showing(following: number): () => void {
    const stream = this.position.stream;
    return () => {
      this.shown = following;
      this.shownIn = stream;
      if (!this.attached || stream !== this.position.stream) return;
      if (following - this.acknowledged >= ACKNOWLEDGE_BYTES) this.acknowledge();
      else this.acknowledgeTimer ??= this.parts.clock.after(ACKNOWLEDGE_MS, () => this.acknowledge());
    };
  }

  private acknowledge(): void {
    if (this.acknowledgeTimer !== null) this.parts.clock.cancel(this.acknowledgeTimer);
    this.acknowledgeTimer = null;
    if (!this.attached || this.shownIn !== this.position.stream || this.shown <= this.acknowledged) return;
    this.acknowledged = this.shown;
    this.socket?.send(encodeAcknowledge(this.shown));
  }

  // Sizes.

  private sendSize(): void {
    if (this.wanted === null || this.parts.role === 'view' || this.socket?.readyState !== OPEN) return;
    this.claimed = true;
    this.claimedAt = this.parts.clock.now();
    this.socket.send(encodeResize(this.wanted));
    this.setSize(this.wanted);
  }

  private told(size: Size): void {
    this.pendingSize = null;
    if (sameSize(size, this.current)) return;
    const own = sameSize(size, this.wanted);
    const waitMs = this.claimedAt + SIZE_GRACE_MS - this.parts.clock.now();
    if (own || waitMs <= 0 || this.current === null) {
      this.setSize(size);
      return;
    }
    this.pendingSize = size;
    this.sizeTimer ??= this.parts.clock.after(waitMs, () => {
      this.sizeTimer = null;
      this.settleSize();
    });
  }

  private settleSize(): void {
    const size = this.pendingSize;
    this.pendingSize = null;
    if (size !== null) this.setSize(size);
  }

  private setSize(size: Size): void {
    if (sameSize(size, this.current)) return;
    this.current = size;
    this.parts.screen.resize(size);
    this.parts.onSize(size, sameSize(size, this.wanted));
  }
}
