import type { ConnectionState, EventsClient, ServerEvent } from './event-stream';

/** What tabs say to each other. `last` is the id of the last event that the sender has. */
export type Message =
  /** Is anybody leading, and where is it? */
  | { kind: 'hello' }
  | { kind: 'state'; leader: string; state: ConnectionState; last: string | undefined }
  | { kind: 'event'; event: ServerEvent; last: string | undefined }
  /** Events are missing before `last`. */
  | { kind: 'gap'; last: string | undefined }
  /** What a tab shows. */
  | { kind: 'watch'; tab: string; ids: readonly string[] }
  | { kind: 'retry' }
  | { kind: 'bye'; tab: string };

export type Channel = {
  post: (message: Message) => void;
  listen: (listener: (message: Message) => void) => void;
  close: () => void;
};

/**
 * Waits until this tab leads, calls `held`, and keeps the others waiting until what that returns
 * has come to its end. Rejects where another tab took over by force, as `steal` does.
 */
export type Lead = (
  held: () => Promise<void>,
  options: { steal: true } | { signal: AbortSignal },
) => Promise<void>;

export type SharedParts = {
  /** This tab's own stream; open only while it leads. */
  client: EventsClient;
  /** This tab's name, unlike every other's. */
  tab: string;
  /** Between the tabs of this user; undefined where the browser has none. */
  openChannel: () => Channel | undefined;
  /** Undefined where the browser has no locks: tabs find a leader by asking around then. */
  lead: () => Lead | undefined;
  now: () => number;
  random: () => number;
  setTimer: (run: () => void, ms: number) => number;
  clearTimer: (timer: number) => void;
};

/** A leader that was not heard for so long is asked whether it is there; it answers at once. */
export const SILENT_MS = 25_000;
const SILENT_MORE_MS = 5_000;
export const ANSWER_MS = 4_000;
/** Without locks a tab that begins has nothing but this to know that it is alone. */
export const ALONE_MS = 600;
const RENEW_MS = 20_000;
const FORGET_MS = 75_000;

/**
 * One stream of events for all tabs of a browser, since a browser opens few connections to a server.
 * One tab leads: it has the stream, and passes on what it hears. When it ends, or answers no more,
 * another one takes over from the last event that it has, so nothing is missed.
 */
export class SharedEvents {
  readonly #parts: SharedParts;
  readonly #listeners = new Set<(event: ServerEvent) => void>();
  readonly #gapListeners = new Set<() => void>();
  readonly #watchers = new Set<() => void>();
  /** How many parts of this page show each session. */
  readonly #looked = new Map<string, number>();
  /** What other tabs show, as the leader knows it. */
  readonly #others = new Map<string, { ids: readonly string[]; at: number }>();
  #state: ConnectionState = { state: 'idle' };
  #started = false;
  #paused = false;
  #visible = true;
  #channel: Channel | undefined;
  #leading = false;
  #leader: string | undefined;
  #last: string | undefined;
  #waiting: AbortController | undefined;
  #release: (() => void) | undefined;
  #silence: number | undefined;
  #saidAt = 0;

  constructor(parts: SharedParts) {
    this.#parts = parts;
    const { client } = parts;
    client.onEvent((event) => {
      this.#last = client.lastEventId;
      this.#tell(event);
      this.#post({ kind: 'event', event, last: this.#last });
    });
    client.onGap(() => {
      this.#last = client.lastEventId;
      this.#gap();
      this.#post({ kind: 'gap', last: this.#last });
    });
    client.onHeard(() => this.#forgetOthers());
    client.watch(() => {
      if (this.#leading) this.#setState(client.getState());
    });
  }

  getState = (): ConnectionState => this.#state;

  get leading(): boolean {
    return this.#leading;
  }

  watch = (watcher: () => void): (() => void) => {
    this.#watchers.add(watcher);
    return () => this.#watchers.delete(watcher);
  };

  onEvent(listener: (event: ServerEvent) => void): () => void {
    this.#listeners.add(listener);
    return () => this.#listeners.delete(listener);
  }

  /** Called when something may have been missed. */
  onGap(listener: () => void): () => void {
    this.#gapListeners.add(listener);
    return () => this.#gapListeners.delete(listener);
  }

  /** Begins to listen, for the user who is signed in now. */
  start(): void {
    if (this.#started) return;
    this.#started = true;
    this.#setState({ state: 'connecting' });
    this.#channel = this.#parts.openChannel();
    if (this.#channel === undefined) {
      this.#begin();
      return;
    }
    this.#channel.listen((message) => this.#heard(message));
    this.#join();
  }

  /** Ends it here: signed out. Other tabs go on where they may. */
  stop(): void {
    if (!this.#started) return;
    this.pause();
    this.#started = false;
    this.#paused = false;
    this.#channel?.close();
    this.#channel = undefined;
    this.#last = undefined;
    this.#setState({ state: 'idle' });
  }

  /** Leaves the stream to others for a while: the browser is about to stop this tab. */
  pause(): void {
    if (!this.#started || this.#paused) return;
    this.#paused = true;
    this.#clearSilence();
    this.#waiting?.abort();
    this.#waiting = undefined;
    this.#stepDown();
    this.#post({ kind: 'bye', tab: this.#parts.tab });
    this.#leader = undefined;
  }

  /** Goes on after a pause, from the last event. */
  resume(): void {
    if (!this.#started || !this.#paused) return;
    this.#paused = false;
    if (this.#channel === undefined) this.#begin();
    else this.#join();
  }

  /** Tries at once if it waits: the network is back, or a person asked. */
  retryNow = (): void => {
    if (this.#leading) this.#parts.client.retryNow();
    else this.#post({ kind: 'retry' });
  };

  /** Whether anybody can see this tab. What nobody sees is not watched. */
  setVisible(visible: boolean): void {
    this.#visible = visible;
    this.#sayWatched();
    // A leader that the browser has stopped answers no more: not for long when somebody looks.
    const follows = this.#started && !this.#paused && !this.#leading && this.#channel !== undefined;
    if (visible && follows) this.#ask();
  }

  /** Hears what happens in a session's sandbox, until what this returns is called. */
  look(sessionId: string): () => void {
    this.#looked.set(sessionId, (this.#looked.get(sessionId) ?? 0) + 1);
    this.#sayWatched();
    return () => {
      const left = (this.#looked.get(sessionId) ?? 1) - 1;
      if (left > 0) this.#looked.set(sessionId, left);
      else this.#looked.delete(sessionId);
      this.#sayWatched();
    };
  }

  // ---- leading ----------------------------------------------------------------------------------

  #join(): void {
    const lead = this.#parts.lead();
    this.#waiting = new AbortController();
    if (lead !== undefined) this.#queue(lead, this.#waiting);
    this.#ask(lead === undefined ? ALONE_MS * (1 + this.#parts.random()) : ANSWER_MS);
  }

  /** Waits for its turn; whoever has it keeps it as long as the tab lives. */
  #queue(lead: Lead, waiting: AbortController): void {
    lead(() => this.#hold(waiting), { signal: waiting.signal }).catch(() => this.#robbed(waiting));
  }

  #hold(waiting: AbortController): Promise<void> {
    if (this.#waiting !== waiting) return Promise.resolve();
    return new Promise((resolve) => {
      this.#release = resolve;
      this.#begin();
    });
  }

  /** Another tab took the lead by force, since this one did not answer: it gets in line again. */
  #robbed(waiting: AbortController): void {
    if (this.#waiting !== waiting) return;
    this.#stepDown();
    this.#join();
  }

  /** Takes the lead from whoever does not answer. */
  #take(): void {
    if (!this.#started || this.#paused || this.#leading) return;
    const lead = this.#parts.lead();
    if (lead === undefined) {
      this.#begin();
      return;
    }
    this.#waiting?.abort();
    const waiting = new AbortController();
    this.#waiting = waiting;
    lead(() => this.#hold(waiting), { steal: true }).catch(() => this.#robbed(waiting));
  }

  #begin(): void {
    if (this.#leading) return;
    this.#leading = true;
    this.#clearSilence();
    const { client } = this.#parts;
    const place = this.#last;
    // A tab that has listened to another leader, and yet has no place to go on from.
    const lost = this.#leader !== undefined && place === undefined;
    this.#leader = this.#parts.tab;
    this.#setWatched();
    client.start(place);
    if (lost) this.#gap();
    // It begins at now: others may have a place, and would not see what is missing since.
    if (place === undefined) this.#post({ kind: 'gap', last: undefined });
  }

  #stepDown(): void {
    if (!this.#leading) return;
    this.#leading = false;
    this.#parts.client.stop();
    this.#others.clear();
    this.#release?.();
    this.#release = undefined;
  }

  // ---- talking ----------------------------------------------------------------------------------

  #heard(message: Message): void {
    if (this.#paused) return;
    if (this.#leading) this.#heardLeading(message);
    else this.#heardFollowing(message);
  }

  #heardLeading(message: Message): void {
    if (message.kind === 'hello') this.#sayState();
    else if (message.kind === 'retry') this.#parts.client.retryNow();
    else if (message.kind === 'bye') this.#setOther(message.tab, []);
    else if (message.kind === 'watch') this.#setOther(message.tab, message.ids);
    // Two lead, as they found each other too late: one of them goes. With locks that cannot be.
    else if (message.kind === 'state' && this.#parts.lead() === undefined) {
      if (message.leader > this.#parts.tab) this.#sayState();
      else {
        this.#stepDown();
        this.#heardFollowing(message);
      }
    }
  }

  #heardFollowing(message: Message): void {
    if (message.kind === 'state') this.#follow(message);
    else if (message.kind === 'event') {
      this.#last = message.last;
      this.#tell(message.event);
      this.#waitForSilence();
    } else if (message.kind === 'gap') {
      this.#last = message.last;
      this.#gap();
    } else if (message.kind === 'bye' && message.tab === this.#leader && this.#parts.lead() === undefined) {
      this.#ask(ALONE_MS * this.#parts.random());
    }
  }

  #follow({ leader, state, last }: Extract<Message, { kind: 'state' }>): void {
    const changed = leader !== this.#leader;
    this.#leader = leader;
    // Where the two do not have the same, nobody knows what this tab has not heard.
    const apart = this.#last !== undefined && last !== undefined && last !== this.#last;
    this.#last = last ?? this.#last;
    this.#setState(state);
    if (apart) this.#gap();
    if (changed || this.#parts.now() - this.#saidAt > RENEW_MS) this.#sayWatched();
    this.#waitForSilence();
  }

  /** Asks for the leader, and takes its place where there is no answer. */
  #ask(withinMs = ANSWER_MS): void {
    this.#post({ kind: 'hello' });
    this.#clearSilence();
    this.#silence = this.#parts.setTimer(() => this.#take(), withinMs);
  }

  #waitForSilence(): void {
    this.#clearSilence();
    const ms = SILENT_MS + SILENT_MORE_MS * this.#parts.random();
    this.#silence = this.#parts.setTimer(() => this.#ask(), ms);
  }

  #clearSilence(): void {
    if (this.#silence !== undefined) this.#parts.clearTimer(this.#silence);
    this.#silence = undefined;
  }

  #sayState(): void {
    if (!this.#leading) return;
    const { tab } = this.#parts;
    this.#post({ kind: 'state', leader: tab, state: this.#state, last: this.#last });
  }

  #post(message: Message): void {
    this.#channel?.post(message);
  }

  #setState(state: ConnectionState): void {
    this.#state = state;
    this.#sayState();
    for (const watcher of this.#watchers) watcher();
  }

  #tell(event: ServerEvent): void {
    for (const listener of this.#listeners) listener(event);
  }

  #gap(): void {
    for (const listener of this.#gapListeners) listener();
  }

  // ---- what is looked at ------------------------------------------------------------------------

  get #mine(): readonly string[] {
    return this.#visible ? [...this.#looked.keys()] : [];
  }

  #sayWatched(): void {
    if (this.#paused) return;
    if (this.#leading) this.#setWatched();
    else {
      this.#saidAt = this.#parts.now();
      this.#post({ kind: 'watch', tab: this.#parts.tab, ids: this.#mine });
    }
  }

  #setOther(tab: string, ids: readonly string[]): void {
    if (ids.length === 0) this.#others.delete(tab);
    else this.#others.set(tab, { ids, at: this.#parts.now() });
    this.#setWatched();
  }

  /** A tab that crashed says no goodbye. */
  #forgetOthers(): void {
    const before = this.#others.size;
    for (const [tab, { at }] of this.#others) {
      if (this.#parts.now() - at > FORGET_MS) this.#others.delete(tab);
    }
    if (this.#others.size < before) this.#setWatched();
  }

  #setWatched(): void {
    const theirs = [...this.#others.values()].flatMap(({ ids }) => ids);
    this.#parts.client.setWatched([...new Set([...this.#mine, ...theirs])]);
  }
}
