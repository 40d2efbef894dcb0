import { afterEach, beforeEach, expect, it, vi } from 'vitest';
import { EventsClient, type ServerEvent } from './event-stream';
import {
  ALONE_MS,
  ANSWER_MS,
  SharedEvents,
  SILENT_MS,
  type Channel,
  type Lead,
  type Message,
} from './shared-events';

type Stream = {
  tab: string;
  watched: readonly string[];
  send: (text: string) => void;
  end: () => void;
};

/** A server whose events have numbers, and which says what is missing to whoever comes back. */
class Server {
  readonly kept: string[] = [];
  readonly streams = new Set<Stream>();
  away = false;

  open(tab: string, last: string | undefined, watched: readonly string[], signal: AbortSignal) {
    if (this.away) return Promise.reject(new TypeError('away'));
    let control: ReadableStreamDefaultController<Uint8Array> | undefined;
    const body = new ReadableStream<Uint8Array>({ start: (given) => void (control = given) });
    const encoder = new TextEncoder();
    const one: Stream = {
      tab,
      watched,
      send: (text) => control?.enqueue(encoder.encode(text)),
      end: () => {
        if (this.streams.delete(one)) control?.error(new TypeError('cut'));
      },
    };
    this.streams.add(one);
    signal.addEventListener('abort', one.end);
    const from = last === undefined ? this.kept.length : Number(last);
    one.send(`event: ready\n${last === undefined ? `id: ${from}\n` : ''}data: {}\n\n`);
    this.kept.slice(from).forEach((name, index) => one.send(frame(from + index + 1, name)));
    return Promise.resolve({ body } as Response);
  }

  say(name: string): void {
    this.kept.push(name);
    for (const one of this.streams) one.send(frame(this.kept.length, name));
  }

  get leader(): string {
    expect(this.streams.size).toBe(1);
    return [...this.streams][0]?.tab ?? '';
  }

  get watched(): readonly string[] {
    return [...this.streams][0]?.watched ?? [];
  }
}

const frame = (number: number, name: string) =>
  `id: ${number}\nevent: thing.changed\ndata: {"id":"${name}"}\n\n`;

/** What tabs of one browser share: messages, which come a moment later, and one lock. */
class Browser {
  readonly server = new Server();
  readonly tabs: Tab[] = [];
  held: { tab: Tab; rob: (error: Error) => void } | undefined;
  queue: { tab: Tab; take: () => void }[] = [];

  constructor(
    readonly locks = true,
    readonly messageMs = 0,
  ) {}

  tab(name: string): Tab {
    const tab = new Tab(this, name);
    this.tabs.push(tab);
    tab.events.start();
    return tab;
  }

  deliver(from: Tab, message: Message): void {
    const text = JSON.stringify(message);
    for (const tab of this.tabs) {
      if (tab === from) continue;
      const arrive = () => tab.receive(JSON.parse(text) as Message);
      if (this.messageMs === 0) queueMicrotask(arrive);
      else setTimeout(arrive, this.messageMs);
    }
  }

  lead =
    (tab: Tab): Lead =>
    (held, options) =>
      new Promise((resolve, reject) => {
        const take = () => {
          const mine = { tab, rob: (error: Error) => tab.when(() => reject(error)) };
          this.held = mine;
          void held().then(() => {
            if (this.held === mine) this.free();
            resolve();
          });
        };
        if ('steal' in options) {
          this.held?.rob(new DOMException('stolen', 'AbortError'));
          take();
          return;
        }
        const waiting = { tab, take };
        options.signal.addEventListener('abort', () => {
          this.queue = this.queue.filter((one) => one !== waiting);
          reject(new DOMException('given up', 'AbortError'));
        });
        if (this.held) this.queue.push(waiting);
        else take();
      });

  free(): void {
    this.held = undefined;
    this.queue.shift()?.take();
  }
}

class Tab {
  readonly events: SharedEvents;
  readonly heard: string[] = [];
  gaps = 0;
  /** The browser has stopped it: it does nothing, and what it should have done comes afterwards. */
  frozen = false;
  #later: (() => void)[] = [];
  #listener: ((message: Message) => void) | undefined;

  constructor(
    readonly browser: Browser,
    readonly name: string,
  ) {
    const timers = {
      now: () => Date.now(),
      random: () => 0.5,
      setTimer: (run: () => void, ms: number) => setTimeout(() => this.when(run), ms) as unknown as number,
      clearTimer: (timer: number) => clearTimeout(timer),
    };
    const client = new EventsClient({
      open: (last, watched, signal) => browser.server.open(name, last, watched, signal),
      ...timers,
    });
    this.events = new SharedEvents({
      client,
      tab: name,
      openChannel: (): Channel => ({
        post: (message) => {
          if (!this.frozen) browser.deliver(this, message);
        },
        listen: (listener) => (this.#listener = listener),
        close: () => (this.#listener = undefined),
      }),
      lead: () => (browser.locks ? browser.lead(this) : undefined),
      ...timers,
    });
    this.events.onEvent(({ id }: ServerEvent) => {
      if (id !== undefined) this.heard.push(id);
    });
    this.events.onGap(() => (this.gaps += 1));
  }

  receive(message: Message): void {
    this.when(() => this.#listener?.(message));
  }

  /** Does it, or once it can. */
  when(run: () => void): void {
    if (this.frozen) this.#later.push(run);
    else run();
  }

  thaw(): void {
    this.frozen = false;
    for (const run of this.#later.splice(0)) run();
  }

  /** Ends without a word, as a tab does whose process is killed: the browser frees its lock. */
  crash(): void {
    this.frozen = true;
    for (const one of this.browser.server.streams) {
      if (one.tab === this.name) this.browser.server.streams.delete(one);
    }
    if (this.browser.held?.tab === this) this.browser.free();
    this.browser.queue = this.browser.queue.filter(({ tab }) => tab !== this);
  }
}

beforeEach(() => void vi.useFakeTimers());
afterEach(() => vi.useRealTimers());

const settle = (ms = 0) => vi.advanceTimersByTimeAsync(ms);

async function opened(count: number, locks = true) {
  const browser = new Browser(locks);
  const tabs: Tab[] = [];
  for (let number = 0; number < count; number += 1) {
    tabs.push(browser.tab(`t${number}`));
    await settle(locks ? 0 : 2 * ALONE_MS);
  }
  await settle(1);
  return { browser, server: browser.server, tabs };
}

const heardByAll = (tabs: Tab[], ...names: string[]) =>
  tabs.forEach((tab) => expect(tab.heard, tab.name).toEqual(names));

it.each([true, false])(
  'opens one stream for eight tabs, and all of them hear it (locks: %s)',
  async (locks) => {
    const { server, tabs } = await opened(8, locks);
    server.say('a');
    server.say('b');
    await settle();
    expect(server.leader).toBe('t0');
    heardByAll(tabs, 'a', 'b');
    expect(tabs.map((tab) => tab.events.getState().state)).toEqual(Array(8).fill('live'));
    await settle(10 * SILENT_MS);
    expect(server.leader).toBe('t0');
    expect(tabs.map(({ gaps }) => gaps)).toEqual(Array(8).fill(0));
  },
);

it.each([true, false])('goes on in another tab when the leader is closed (locks: %s)', async (locks) => {
  const { server, tabs } = await opened(3, locks);
  server.say('a');
  await settle();
  tabs[0]?.events.pause();
  expect(server.streams.size).toBe(0);
  server.say('missed');
  await settle(ALONE_MS);
  expect(server.leader).not.toBe('t0');
  server.say('b');
  await settle();
  heardByAll(tabs.slice(1), 'a', 'missed', 'b');
  expect(tabs.map(({ gaps }) => gaps)).toEqual([0, 0, 0]);
});

it('goes on at once when the leader has crashed', async () => {
  const { server, tabs } = await opened(3);
  server.say('a');
  await settle();
  tabs[0]?.crash();
  server.say('missed');
  await settle();
  expect(server.leader).toBe('t1');
  heardByAll(tabs.slice(1), 'a', 'missed');
});

it('takes over from a leader that answers no more, and keeps it from leading again', async () => {
  const { server, tabs } = await opened(3);
  const [first, second, third] = tabs as [Tab, Tab, Tab];
  server.say('a');
  await settle();
  first.frozen = true;
  await settle(SILENT_MS);
  expect(server.leader).toBe('t0');
  await settle(5_000 + ANSWER_MS);
  const streams = [...server.streams].map(({ tab }) => tab);
  expect(streams.filter((tab) => tab !== 't0')).toHaveLength(1);
  server.say('b');
  await settle();
  heardByAll([second, third], 'a', 'b');

  first.thaw();
  await settle(2 * ANSWER_MS);
  expect(server.leader).not.toBe('t0');
  server.say('c');
  await settle();
  expect(first.heard).toContain('c');
  expect([second.events.leading, third.events.leading].filter(Boolean)).toHaveLength(1);
  heardByAll([second, third], 'a', 'b', 'c');
});

it('does not wait that long when somebody looks', async () => {
  const { server, tabs } = await opened(2);
  const [first, second] = tabs as [Tab, Tab];
  first.frozen = true;
  second.events.setVisible(false);
  second.events.setVisible(true);
  await settle(ANSWER_MS);
  expect(second.events.leading).toBe(true);
  server.say('a');
  await settle();
  expect(second.heard).toEqual(['a']);
});

it('gives the lead away before the browser stops it, and hears all that it has missed', async () => {
  const { server, tabs } = await opened(2);
  const [first, second] = tabs as [Tab, Tab];
  server.say('a');
  await settle();
  first.events.pause();
  first.frozen = true;
  await settle(1);
  expect(server.leader).toBe('t1');
  server.say('b');
  await settle();
  first.thaw();
  first.events.resume();
  await settle(1);
  // What was said meanwhile it cannot know: it reads everything again.
  expect(first.gaps).toBe(1);
  server.say('c');
  await settle();
  expect(first.heard).toEqual(['a', 'c']);
  expect(second.heard).toEqual(['a', 'b', 'c']);
  expect(second.gaps).toBe(0);
});

it('tells every tab that the server is away, and any of them may try again', async () => {
  const { server, tabs } = await opened(3);
  server.away = true;
  [...server.streams].forEach((one) => one.end());
  await settle();
  expect(tabs.map((tab) => tab.events.getState().state)).toEqual(Array(3).fill('waiting'));
  server.away = false;
  server.say('missed');
  tabs[2]?.events.retryNow();
  await settle();
  expect(tabs.map((tab) => tab.events.getState().state)).toEqual(Array(3).fill('live'));
  heardByAll(tabs, 'missed');
});

it('watches what any tab shows to somebody, and forgets tabs that crashed', async () => {
  const { server, tabs } = await opened(3);
  const [first, second, third] = tabs as [Tab, Tab, Tab];
  const end = first.events.look('x');
  first.events.look('x');
  second.events.look('y');
  third.events.look('z');
  await settle(200);
  expect(server.watched).toEqual(['x', 'y', 'z']);
  end();
  second.events.setVisible(false);
  await settle(11_000);
  expect(server.watched).toEqual(['x', 'z']);

  first.events.pause();
  await settle(200);
  expect(server.leader).toBe('t1');
  expect(server.watched).toEqual(['z']);

  third.crash();
  for (let beat = 0; beat < 6; beat += 1) {
    [...server.streams].forEach((one) => one.send(': beat\n\n'));
    await settle(20_000);
  }
  expect(server.watched).toEqual([]);
});

it('keeps what a quiet tab shows watched for hours', async () => {
  const { server, tabs } = await opened(2);
  tabs[1]?.events.look('x');
  await settle(200);
  for (let beat = 0; beat < 200; beat += 1) {
    [...server.streams].forEach((one) => one.send(': beat\n\n'));
    await settle(20_000);
    expect(server.watched).toEqual(['x']);
  }
});

it('ends with the sign-in, and begins anew with the next one', async () => {
  const { server, tabs } = await opened(2);
  tabs.forEach((tab) => tab.events.stop());
  await settle(10 * SILENT_MS);
  expect(server.streams.size).toBe(0);
  expect(tabs.map((tab) => tab.events.getState().state)).toEqual(['idle', 'idle']);
  server.say('of nobody');
  tabs.forEach((tab) => tab.events.start());
  await settle(1);
  server.say('a');
  await settle();
  heardByAll(tabs, 'a');
});

it('finds one leader where two began at once without locks', async () => {
  const browser = new Browser(false, 5);
  const tabs = [browser.tab('b'), browser.tab('a'), browser.tab('c')];
  await settle(3 * ALONE_MS);
  browser.server.say('x');
  await settle(20);
  expect(browser.server.leader).toBe('a');
  tabs.forEach((tab) => expect(tab.heard.at(-1)).toBe('x'));
});

it('has a stream of its own where the browser offers nothing to share it', async () => {
  const server = new Server();
  const client = new EventsClient({
    open: (last, watched, signal) => server.open('own', last, watched, signal),
    now: () => Date.now(),
    random: () => 0.5,
    setTimer: (run, ms) => setTimeout(run, ms) as unknown as number,
    clearTimer: (timer) => clearTimeout(timer),
  });
  const events = new SharedEvents({
    client,
    tab: 'own',
    openChannel: () => undefined,
    lead: () => undefined,
    now: () => Date.now(),
    random: () => 0.5,
    setTimer: (run, ms) => setTimeout(run, ms) as unknown as number,
    clearTimer: (timer) => clearTimeout(timer),
  });
  const heard: (string | undefined)[] = [];
  events.onEvent(({ id }) => heard.push(id));
  events.start();
  events.look('x');
  await settle(200);
  server.say('a');
  await settle();
  expect(heard).toContain('a');
  expect(server.watched).toEqual(['x']);
  events.pause();
  expect(server.streams.size).toBe(0);
  server.say('b');
  events.resume();
  await settle();
  expect(heard).toContain('b');
  events.stop();
  expect(server.streams.size).toBe(0);
});
