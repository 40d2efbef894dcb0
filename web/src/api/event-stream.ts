import { ApiError, SIGNED_OUT } from './errors';
import { EventStreamParser } from './sse';

/** Something changed on the server. `id` names the thing of the type's first word. */
export type ServerEvent = {
  type: string;
  id?: string | undefined;
  environmentId?: string | undefined;
  sessionId?: string | undefined;
  /** The job of the session that it is about; where it is missing, it may be any of them. */
  job?: string | undefined;
};

export type ConnectionState =
  | { state: 'idle' }
  | { state: 'connecting' }
  | { state: 'live' }
  /** Cut; tried again at `at` (milliseconds since the epoch). */
  | { state: 'waiting'; at: number; attempt: number }
  /** This server has no events: what is shown is read again when the page is looked at. */
  | { state: 'unsupported' };

/** Opens the stream: what came after `lastEventId`, and what happens in the sessions of `watched`. */
export type OpenStream = (
  lastEventId: string | undefined,
  watched: readonly string[],
  signal: AbortSignal,
) => Promise<Response>;

export type EventsParts = {
  open: OpenStream;
  now: () => number;
  random: () => number;
  setTimer: (run: () => void, ms: number) => number;
  clearTimer: (timer: number) => void;
};

const FIRST_WAIT_MS = 1_000;
const LONGEST_WAIT_MS = 30_000;
/** How long a server's `Retry-After` is obeyed at most. */
const LONGEST_ASKED_MS = 5 * 60_000;
/** The server sends a comment every 20 seconds; without any byte for this long, the way is dead. */
export const SILENCE_MS = 45_000;
/** A session that comes into view is watched at once; one that leaves it may come back in a moment. */
export const WATCH_SOON_MS = 150;
export const WATCH_LESS_MS = 10_000;
/** The server takes no more in one stream. */
const MOST_WATCHED = 16;

/** How long to wait before another try: doubling, with the upper half by chance. */
export function backoff(attempt: number, random: number): number {
  const full = Math.min(LONGEST_WAIT_MS, FIRST_WAIT_MS * 2 ** Math.min(attempt, 10));
  return Math.round(full / 2 + (full / 2) * random);
}

/** Reads an event's data; undefined where it is not what was agreed. */
export function readEvent(type: string, data: string): ServerEvent | undefined {
  try {
    const value: unknown = JSON.parse(data);
    if (typeof value !== 'object' || value === null || Array.isArray(value)) return undefined;
    const fields = value as Record<string, unknown>;
    const word = (key: string) => (typeof fields[key] === 'string' ? fields[key] : undefined);
    return {
      ...fields,
      type: word('type') ?? type,
      id: word('id'),
      environmentId: word('environmentId'),
      sessionId: word('sessionId'),
      job: word('job'),
    };
  } catch {
    return undefined;
  }
}

/** What the page hears of the server, from whichever tab has the stream. */
export type EventSource = Pick<EventsClient, 'getState' | 'watch' | 'onEvent' | 'onGap'>;

/**
 * Keeps one stream of the server's events open: comes back by itself where it was cut, from the
 * last event that it saw, and says when something may have been missed, so that all is read again.
 */
export class EventsClient {
  readonly #parts: EventsParts;
  readonly #listeners = new Set<(event: ServerEvent) => void>();
  readonly #gapListeners = new Set<() => void>();
  readonly #watchers = new Set<() => void>();
  readonly #placeListeners = new Set<() => void>();
  #state: ConnectionState = { state: 'idle' };
  #lastEventId: string | undefined;
  #opened = false;
  #attempt = 0;
  #leastWait = 0;
  #wished: readonly string[] = [];
  #watched: readonly string[] = [];
  #swapTimer: number | undefined;
  #timer: number | undefined;
  #silence: number | undefined;
  #abort: AbortController | undefined;

  constructor(parts: EventsParts) {
    this.#parts = parts;
  }

  getState = (): ConnectionState => this.#state;

  watch = (watcher: () => void): (() => void) => {
    this.#watchers.add(watcher);
    return () => this.#watchers.delete(watcher);
  };

  onEvent(listener: (event: ServerEvent) => void): () => void {
    this.#listeners.add(listener);
    return () => this.#listeners.delete(listener);
  }

  /** Called after the stream came back without being able to say what was missed. */
  onGap(listener: () => void): () => void {
    this.#gapListeners.add(listener);
    return () => this.#gapListeners.delete(listener);
  }

  /** Called whenever something was read, if only that the server lives. */
  onHeard(listener: () => void): () => void {
    this.#placeListeners.add(listener);
    return () => this.#placeListeners.delete(listener);
  }

  get lastEventId(): string | undefined {
    return this.#lastEventId;
  }

  /** Begins, after an event that somebody else saw where one is given. */
  start(lastEventId?: string): void {
    if (this.#state.state !== 'idle') return;
    this.#lastEventId = lastEventId;
    void this.#connect();
  }

  stop(): void {
    this.#clear();
    this.#abort?.abort();
    this.#abort = undefined;
    this.#lastEventId = undefined;
    this.#opened = false;
    this.#attempt = 0;
    this.#set({ state: 'idle' });
  }

  /**
   * Says which sessions are looked at. The stream is opened anew for it, from the last event, and
   * nobody notices.
   */
  setWatched(ids: readonly string[]): void {
    this.#wished = [...ids].sort().slice(0, MOST_WATCHED);
    this.#swapSoon();
  }

  /** Tries at once if it waits: the network is back, or a person asked. */
  retryNow = (): void => {
    if (this.#state.state !== 'waiting') return;
    this.#clear();
    void this.#connect();
  };

  #swapSoon(): void {
    if (this.#swapTimer !== undefined) this.#parts.clearTimer(this.#swapTimer);
    this.#swapTimer = undefined;
    if (this.#state.state !== 'live') return; // the next try asks for them
    const now = new Set(this.#watched);
    const more = this.#wished.some((id) => !now.has(id));
    if (!more && this.#wished.length === now.size) return;
    this.#swapTimer = this.#parts.setTimer(() => this.#swap(), more ? WATCH_SOON_MS : WATCH_LESS_MS);
  }

  #swap(): void {
    if (this.#state.state !== 'live') return;
    // Without a place it could not go on from there: that comes with the first event.
    if (this.#lastEventId === undefined) {
      this.#swapSoon();
      return;
    }
    this.#clear();
    this.#abort?.abort();
    void this.#connect();
  }

  async #connect(): Promise<void> {
    const abort = new AbortController();
    this.#abort = abort;
    if (this.#state.state !== 'live') this.#set({ state: 'connecting' });
    try {
      this.#listen(abort);
      this.#watched = this.#wished;
      const response = await this.#parts.open(this.#lastEventId, this.#watched, abort.signal);
      if (abort.signal.aborted) return;
      if (this.#state.state !== 'live') this.#set({ state: 'live' });
      this.#swapSoon();
      await this.#read(response, abort);
      this.#again(abort);
    } catch (error) {
      this.#failed(error, abort);
    }
  }

  async #read(response: Response, abort: AbortController): Promise<void> {
    if (this.#opened && this.#lastEventId === undefined) this.#gap();
    this.#opened = true;
    const reader = response.body?.getReader();
    if (!reader) return;
    const decoder = new TextDecoder();
    const parser = new EventStreamParser((ms) => {
      this.#leastWait = Math.min(ms, LONGEST_WAIT_MS);
    });
    try {
      for (;;) {
        const { done, value } = await reader.read();
        if (done || abort.signal.aborted) return;
        this.#listen(abort);
        this.#attempt = 0;
        for (const { id, type, data } of parser.push(decoder.decode(value, { stream: true }))) {
          if (id !== undefined) this.#lastEventId = id;
          this.#take(type, data);
        }
        for (const listener of this.#placeListeners) listener();
      }
    } finally {
      reader.cancel().catch(() => undefined);
    }
  }

  #take(type: string, data: string): void {
    // The server no longer has what came after the id it was asked for.
    if (type === 'reset') {
      this.#gap();
      return;
    }
    const event = readEvent(type, data);
    if (event) for (const listener of this.#listeners) listener(event);
  }

  #gap(): void {
    for (const listener of this.#gapListeners) listener();
  }

  #failed(error: unknown, abort: AbortController): void {
    if (this.#abort !== abort) return;
    // The tokens were renewed already where that can be: without that the sign-in is over.
    if (error instanceof ApiError && error.code === SIGNED_OUT) {
      this.stop();
      return;
    }
    // Proxies have a 404 of their own for a server that is only away.
    if (error instanceof ApiError && error.status === 404 && error.code === 'ROUTE_NOT_FOUND') {
      this.#clear();
      this.#set({ state: 'unsupported' });
      return;
    }
    if (error instanceof ApiError && error.retryAfter !== undefined) {
      this.#leastWait = Math.min(error.retryAfter * 1_000, LONGEST_ASKED_MS);
    }
    this.#again(abort);
  }

  #again(abort: AbortController): void {
    if (this.#abort !== abort) return;
    this.#clear();
    abort.abort();
    const wait = Math.max(this.#leastWait, backoff(this.#attempt, this.#parts.random()));
    this.#leastWait = 0;
    this.#attempt += 1;
    this.#timer = this.#parts.setTimer(() => void this.#connect(), wait);
    this.#set({ state: 'waiting', at: this.#parts.now() + wait, attempt: this.#attempt });
  }

  /** Begins the time anew in which something must be heard. */
  #listen(abort: AbortController): void {
    if (this.#silence !== undefined) this.#parts.clearTimer(this.#silence);
    this.#silence = this.#parts.setTimer(() => this.#again(abort), SILENCE_MS);
  }

  #clear(): void {
    for (const timer of [this.#timer, this.#silence, this.#swapTimer]) {
      if (timer !== undefined) this.#parts.clearTimer(timer);
    }
    this.#timer = undefined;
    this.#silence = undefined;
    this.#swapTimer = undefined;
  }

  #set(state: ConnectionState): void {
    this.#state = state;
    for (const watcher of this.#watchers) watcher();
  }
}
