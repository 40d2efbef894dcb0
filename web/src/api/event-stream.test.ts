import { afterEach, describe, expect, it, vi } from 'vitest';
import { ApiError } from './errors';
import {
  backoff,
  EventsClient,
  SILENCE_MS,
  WATCH_LESS_MS,
  WATCH_SOON_MS,
  type ServerEvent,
} from './event-stream';
import { staleKeys } from './live';
import { EventStreamParser, StreamTooLarge, type ServerSentEvent } from './sse';

const STREAM = [
  ': hello\n\n',
  'id: 1\nevent: environment.changed\ndata: {"id":"e1"}\n\n',
  'id: 2\r\nevent: session.changed\r\ndata: {"id":"s1",\r\ndata: "environmentId":"e1"}\r\n\r\n',
  'event: nothing\n\n',
  'data:no space\ndata\n\n',
  'id: 3\rdata: old line ends\r\r',
  'data: grüße 🎉\n\n',
  'data: never finished',
].join('');

const EVENTS: ServerSentEvent[] = [
  { id: '1', type: 'environment.changed', data: '{"id":"e1"}' },
  { id: '2', type: 'session.changed', data: '{"id":"s1",\n"environmentId":"e1"}' },
  { id: '2', type: 'message', data: 'no space\n' },
  { id: '3', type: 'message', data: 'old line ends' },
  { id: '3', type: 'message', data: 'grüße 🎉' },
];

describe('the event stream parser', () => {
  it('finds the same events wherever the stream is cut', () => {
    for (let cut = 0; cut <= STREAM.length; cut += 1) {
      const parser = new EventStreamParser();
      expect([...parser.push(STREAM.slice(0, cut)), ...parser.push(STREAM.slice(cut))]).toEqual(EVENTS);
    }
    const parser = new EventStreamParser();
    expect(Array.from(STREAM).flatMap((letter) => parser.push(letter))).toEqual(EVENTS);
  });

  it('reports how long the server wants to be left alone, and only numbers', () => {
    const wishes: number[] = [];
    const parser = new EventStreamParser((ms) => wishes.push(ms));
    parser.push('retry: 2500\nretry: soon\nretry: -1\n');
    expect(wishes).toEqual([2500]);
  });

  it('gives up on a line or an event without end', () => {
    const parser = new EventStreamParser();
    expect(() => {
      for (let piece = 0; piece < 200; piece += 1) parser.push('x'.repeat(10_000));
    }).toThrow(StreamTooLarge);
    const lines = new EventStreamParser();
    expect(() => {
      for (let piece = 0; piece < 200; piece += 1) lines.push(`data: ${'x'.repeat(10_000)}\n`);
    }).toThrow(StreamTooLarge);
  });
});

/** A stream whose end and pieces the test decides. */
function stream() {
  let control: ReadableStreamDefaultController<Uint8Array> | undefined;
  const body = new ReadableStream<Uint8Array>({
    start: (given) => {
      control = given;
    },
  });
  const encoder = new TextEncoder();
  return {
    response: { body } as Response,
    send: (text: string) => control?.enqueue(encoder.encode(text)),
    end: () => control?.close(),
    fail: () => control?.error(new TypeError('network')),
  };
}

type Opening = {
  lastEventId: string | undefined;
  watched: readonly string[];
  aborted: () => boolean;
  stream: ReturnType<typeof stream>;
};

function setUp() {
  vi.useFakeTimers();
  const openings: Opening[] = [];
  let refusal: ApiError | undefined;
  const client = new EventsClient({
    open: (lastEventId, watched, signal) => {
      if (refusal) return Promise.reject(refusal);
      const opened = { lastEventId, watched, aborted: () => signal.aborted, stream: stream() };
      openings.push(opened);
      signal.addEventListener('abort', opened.stream.fail);
      return Promise.resolve(opened.stream.response);
    },
    now: () => Date.now(),
    random: () => 1,
    setTimer: (run, ms) => setTimeout(run, ms) as unknown as number,
    clearTimer: (timer) => clearTimeout(timer),
  });
  const seen: ServerEvent[] = [];
  let gaps = 0;
  client.onEvent((event) => seen.push(event));
  client.onGap(() => (gaps += 1));
  return {
    client,
    openings,
    seen,
    gaps: () => gaps,
    refuse: (error: ApiError | undefined) => (refusal = error),
    settle: () => vi.advanceTimersByTimeAsync(0),
  };
}

afterEach(() => vi.useRealTimers());

describe('the events client', () => {
  it('comes back from the last event it saw, without a gap', async () => {
    const { client, openings, seen, gaps, settle } = setUp();
    client.start();
    await settle();
    expect(client.getState()).toEqual({ state: 'live' });
    openings[0]?.stream.send(
      'id: 41\nevent: git.changed\ndata: {"sessionId":"s1"}\n\nid: 42\ndata: {"type":"x"}\n\nid: 4',
    );
    await settle();
    openings[0]?.stream.fail();
    await settle();
    expect(client.getState()).toMatchObject({ state: 'waiting', attempt: 1 });
    await vi.advanceTimersByTimeAsync(1_000);
    expect(openings[1]?.lastEventId).toBe('42');
    openings[1]?.stream.send('id: 43\nevent: session.changed\ndata: {"id":"s2"}\n\n');
    await settle();
    expect(seen.map((one) => one.type)).toEqual(['git.changed', 'x', 'session.changed']);
    expect(gaps()).toBe(0);
  });

  it('tells of a gap when the server says so, or when it cannot be known', async () => {
    const { client, openings, gaps, settle } = setUp();
    client.start();
    await settle();
    openings[0]?.stream.end();
    await vi.advanceTimersByTimeAsync(1_000);
    expect(gaps()).toBe(1);
    openings[1]?.stream.send('event: reset\ndata: {}\n\n');
    await settle();
    expect(gaps()).toBe(2);
  });

  it('waits longer each time, and tries at once when asked', async () => {
    const { client, openings, refuse, settle } = setUp();
    refuse(new ApiError('down', { status: 0, code: 'NETWORK' }));
    client.start();
    await settle();
    for (const wait of [1_000, 2_000, 4_000, 8_000, 16_000, 30_000, 30_000]) {
      expect(client.getState()).toMatchObject({ state: 'waiting', at: Date.now() + wait });
      await vi.advanceTimersByTimeAsync(wait);
    }
    refuse(undefined);
    client.retryNow();
    await settle();
    expect(openings).toHaveLength(1);
    expect(client.getState()).toEqual({ state: 'live' });
  });

  it('honours how long a busy server wants to be left alone', async () => {
    const { client, refuse, settle } = setUp();
    refuse(new ApiError('busy', { status: 503, code: 'UNAVAILABLE', retryAfter: 12 }));
    client.start();
    await settle();
    expect(client.getState()).toMatchObject({ state: 'waiting', at: Date.now() + 12_000 });
  });

  it('obeys a long Retry-After of a server that has too many streams, within reason', async () => {
    const { client, refuse, settle } = setUp();
    refuse(new ApiError('many', { status: 429, code: 'TOO_MANY_EVENT_STREAMS', retryAfter: 90 }));
    client.start();
    await settle();
    expect(client.getState()).toMatchObject({ state: 'waiting', at: Date.now() + 90_000 });
    client.stop();
    refuse(new ApiError('many', { status: 429, code: 'X', retryAfter: 1e9 }));
    client.start();
    await settle();
    expect(client.getState()).toMatchObject({ state: 'waiting', at: Date.now() + 300_000 });
  });

  it('tries again after a refusal that is not the end of the sign-in, or is a proxy of its own', async () => {
    for (const [status, code] of [
      [401, 'UNAUTHENTICATED'],
      [404, 'HTTP_404'],
      [502, 'HTTP_502'],
    ] as const) {
      const { client, refuse, settle, openings } = setUp();
      refuse(new ApiError('no', { status, code }));
      client.start();
      await settle();
      expect(client.getState()).toMatchObject({ state: 'waiting' });
      refuse(undefined);
      await vi.advanceTimersByTimeAsync(1_000);
      expect(client.getState()).toEqual({ state: 'live' });
      expect(openings).toHaveLength(1);
    }
  });

  it('asks for what is looked at by opening the stream anew, and nobody notices', async () => {
    const { client, openings, seen, gaps, settle } = setUp();
    const states: string[] = [];
    client.setWatched(['b']);
    client.watch(() => states.push(client.getState().state));
    client.start();
    await settle();
    expect(openings.map(({ watched }) => watched)).toEqual([['b']]);
    client.setWatched(['b', 'a']);
    await vi.advanceTimersByTimeAsync(WATCH_SOON_MS);
    expect(openings).toHaveLength(1); // it has no place yet to go on from
    openings[0]?.stream.send('id: 7\nevent: ready\ndata: {}\n\n');
    await vi.advanceTimersByTimeAsync(WATCH_SOON_MS);
    expect(openings[0]?.aborted()).toBe(true);
    expect(openings[1]).toMatchObject({ lastEventId: '7', watched: ['a', 'b'] });
    openings[1]?.stream.send('id: 8\nevent: x.changed\ndata: {}\n\n');
    await settle();
    expect(seen.map((one) => one.type)).toEqual(['ready', 'x.changed']);
    expect(gaps()).toBe(0);
    expect(states).toEqual(['connecting', 'live']);
  });

  it('waits with what is not looked at any more, as it may come back', async () => {
    const { client, openings, settle } = setUp();
    client.setWatched(['a', 'b']);
    client.start();
    await settle();
    openings[0]?.stream.send('id: 7\nevent: ready\ndata: {}\n\n');
    await settle();
    client.setWatched(['a']);
    await vi.advanceTimersByTimeAsync(WATCH_LESS_MS - 1);
    client.setWatched(['b', 'a']);
    await vi.advanceTimersByTimeAsync(WATCH_LESS_MS);
    expect(openings).toHaveLength(1);
    client.setWatched([]);
    await vi.advanceTimersByTimeAsync(WATCH_LESS_MS);
    expect(openings[1]?.watched).toEqual([]);
  });

  it('watches no more than the server takes, and goes on after the place that it is given', async () => {
    const { client, openings, settle } = setUp();
    client.setWatched(Array.from({ length: 40 }, (_, number) => String(number)));
    client.start('41-a');
    await settle();
    expect(openings[0]?.watched).toHaveLength(16);
    expect(openings[0]?.lastEventId).toBe('41-a');
  });

  it('takes silence for a dead connection, and any byte for a living one', async () => {
    const { client, openings, settle } = setUp();
    client.start();
    await settle();
    await vi.advanceTimersByTimeAsync(SILENCE_MS - 1_000);
    openings[0]?.stream.send(': beat\n\n');
    await vi.advanceTimersByTimeAsync(SILENCE_MS - 1_000);
    expect(client.getState()).toEqual({ state: 'live' });
    await vi.advanceTimersByTimeAsync(1_000);
    expect(client.getState()).toMatchObject({ state: 'waiting' });
  });

  it('leaves a server alone that has no events, and stops when signed out', async () => {
    const { client, refuse, settle, openings } = setUp();
    refuse(new ApiError('no route', { status: 404, code: 'ROUTE_NOT_FOUND' }));
    client.start();
    await settle();
    expect(client.getState()).toEqual({ state: 'unsupported' });
    client.stop();
    refuse(new ApiError('out', { status: 401, code: 'SIGNED_OUT' }));
    client.start();
    await settle();
    expect(client.getState()).toEqual({ state: 'idle' });
    await vi.advanceTimersByTimeAsync(120_000);
    expect(openings).toHaveLength(0);
  });

  it('ignores data that is not what was agreed', async () => {
    const { client, openings, seen, settle } = setUp();
    client.start();
    await settle();
    openings[0]?.stream.send('data: nonsense\n\ndata: [1]\n\ndata: null\n\nevent: a.b\ndata: {"id":7}\n\n');
    await settle();
    expect(seen).toEqual([
      { type: 'a.b', id: undefined, environmentId: undefined, sessionId: undefined, job: undefined },
    ]);
  });
});

describe('waiting and old copies', () => {
  it('waits between half and all of the time', () => {
    expect(backoff(3, 0)).toBe(4_000);
    expect(backoff(3, 1)).toBe(8_000);
    expect(backoff(99, 1)).toBe(30_000);
  });

  it('knows which copies an event makes old', () => {
    expect(staleKeys({ type: 'environment.changed', id: 'e' })).toEqual([
      ['environments'],
      ['environment', 'e'],
      ['disk', 'e'],
    ]);
    expect(staleKeys({ type: 'session.deleted', id: 's', environmentId: 'e' })).toEqual([
      ['environments'],
      ['session', 's'],
      ['sessions', 'e'],
      ['prompts', 's'],
      ['agent-run', 's'],
    ]);
    expect(staleKeys({ type: 'git.changed', sessionId: 's' })).toContainEqual(['git', 'status', 's']);
    expect(staleKeys({ type: 'git.changed', id: 'e' })).toEqual([['git']]);
    expect(staleKeys({ type: 'github.changed' })).toEqual([['github']]);
    expect(staleKeys({ type: '' })).toEqual([]);
  });

  it('reads only the log of a job that said something, and all of one that is another', () => {
    const of = (type: string, job?: string) => staleKeys({ type, sessionId: 's', job });
    expect(of('job.output', 'setup')).toEqual([['setup', 's', 'log']]);
    expect(of('job.changed', 'setup')).toEqual([['setup', 's']]);
    expect(of('job.output', 'command.dev')).toEqual([['commands', 's', 'dev']]);
    expect(of('job.changed', 'command.dev')).toEqual([['commands', 's']]);
    expect(of('job.changed')).toEqual([
      ['setup', 's'],
      ['commands', 's'],
    ]);
    expect(of('job.changed', 'teardown')).toEqual([]);
    expect(staleKeys({ type: 'job.changed', job: 'setup' })).toEqual([['setup'], ['commands']]);
  });
});
