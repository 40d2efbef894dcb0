import { api } from './client';
import { ApiError } from './errors';
import { EventStreamParser } from './sse';

/** Something changed on the server. `id` names the thing of the type's first word. */
export type ServerEvent = {
  type: string;
  id?: string | undefined;
  environmentId?: string | undefined;
  sessionId?: string | undefined;
};

export type ConnectionState =
  | { state: 'idle' }
  | { state: 'connecting' }
  | { state: 'live' }
  /** Cut; tried again at `at` (milliseconds since the epoch). */
  | { state: 'waiting'; at: number; attempt: number }
  /** This server has no events: what is shown is read again when the page is looked at. */
  | { state: 'unsupported' };

/** Opens the stream; `lastEventId` asks for what came after it. */
export type OpenStream = (lastEventId: string | undefined, signal: AbortSignal) => Promise<Response>;

export type EventsParts = {
  open: OpenStream;
  now: () => number;
  random: () => number;
  setTimer: (run: () => void, ms: number) => number;
  clearTimer: (timer: number) => void;
};

const FIRST_WAIT_MS = 1_000;
const LONGEST_WAIT_MS = 30_000;
/** The server sends a comment every 15 seconds or so; without any byte for this long, the way is dead. */
export const SILENCE_MS = 45_000;

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
    };
  } catch {
    return undefined;
  }
}

/**
 * Keeps one stream of the server's events open: comes back by itself where it was cut, from the
 * last event that it saw, and says when something may have been missed, so that all is read again.
 */
export class EventsClient {
  readonly #parts: EventsParts;
  readonly #listeners = new Set<(event: ServerEvent) => void>();
  readonly #gapListeners = new Set<() => void>();
  readonly #watchers = new Set<() => void>();
  #state: ConnectionState = { state: 'idle' };
  #lastEventId: string | undefined;
  #opened = false;
  #attempt = 0;
  #leastWait = 0;
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

  start(): void {
    if (this.#state.state === 'idle') void this.#connect();
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

  /** Tries at once if it waits: the network is back, or a person asked. */
  retryNow = (): void => {
    if (this.#state.state !== 'waiting') return;
    this.#clear();
    void this.#connect();
  };

  async #connect(): Promise<void> {
    const abort = new AbortController();
    this.#abort = abort;
    this.#set({ state: 'connecting' });
    try {
      this.#listen(abort);
      const response = await this.#parts.open(this.#lastEventId, abort.signal);
      if (abort.signal.aborted) return;
      this.#set({ state: 'live' });
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
    if (error instanceof ApiError && error.status === 401) {
      this.stop();
      return;
    }
    if (error instanceof ApiError && error.status === 404) {
      this.#clear();
      this.#set({ state: 'unsupported' });
      return;
    }
    if (error instanceof ApiError && error.retryAfter !== undefined) {
      this.#leastWait = Math.min(error.retryAfter * 1_000, LONGEST_WAIT_MS);
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
    for (const timer of [this.#timer, this.#silence]) {
      if (timer !== undefined) this.#parts.clearTimer(timer);
    }
    this.#timer = undefined;
    this.#silence = undefined;
  }

  #set(state: ConnectionState): void {
    this.#state = state;
    for (const watcher of this.#watchers) watcher();
  }
}

export const events = new EventsClient({
  open: (lastEventId, signal) =>
    api.open('GET', '/api/events', {
      signal,
      deadlineMs: Infinity,
      headers: {
        Accept: 'text/event-stream',
        ...(lastEventId === undefined ? {} : { 'Last-Event-ID': lastEventId }),
      },
    }),
  now: () => Date.now(),
  random: () => Math.random(),
  setTimer: (run, ms) => window.setTimeout(run, ms),
  clearTimer: (timer) => window.clearTimeout(timer),
});
