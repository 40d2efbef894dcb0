import { describe, expect, it } from 'vitest';
import { MAX_HELD_BYTES, OPEN_TIMEOUT_MS, SIZE_GRACE_MS } from './connection';
import { randomOf, settled, world, type World } from './fakes';
import { MAX_INPUT_BYTES } from './protocol';

const text = (value: string) => new TextEncoder().encode(value);
const typed = ({ server }: World) => new TextDecoder().decode(new Uint8Array(server.typed));

async function live(one: World): Promise<void> {
  one.connection.start();
  await settled();
  attach(one);
}

function attach({ server, screen }: World): void {
  server.accept(server.last);
  server.pump(server.last);
  server.last.deliver();
  screen.show();
}

describe('over random cuts', () => {
  it.each(Array.from({ length: 60 }, (_, seed) => seed))(
    'every byte is shown once and in order, and typed once and in order (seed %i)',
    async (seed) => {
      const random = randomOf(seed * 7919 + 1);
      const one = world(seed, 'drive', 100 + Math.floor(random() * 300));
      const { connection, clock, server, screen, sign } = one;
      let printed = 0;
      let keys = 0;
      const expected: number[] = [];
      connection.start();
      for (let step = 0; step < 600; step++) {
        await settled();
        const socket = server.opened.at(-1);
        const chance = random();
        if (chance < 0.3) {
          const count = Math.floor(random() * 60);
          server.print(...Array.from({ length: count }, () => printed++ % 251));
        } else if (chance < 0.45 && socket !== undefined) {
          server.pump(socket, 1 + Math.floor(random() * 40));
        } else if (chance < 0.65) {
          socket?.deliver(Math.floor(random() * 5));
        } else if (chance < 0.75) {
          screen.show(Math.floor(random() * 5));
        } else if (chance < 0.85) {
          const key = keys++ % 256;
          if (connection.type(new Uint8Array([key, key])) !== 'full') expected.push(key, key);
        } else if (chance < 0.9) {
          socket?.end(random() < 0.8 ? 1006 : 1012);
        } else if (chance < 0.915) {
          server.restart();
        } else if (chance < 0.93) {
          connection.suspect('offline');
        } else if (chance < 0.94) {
          sign.fails = !sign.fails;
        } else if (chance < 0.95) {
          socket?.end(1008, 'Invalid authentication token');
          await settled();
          if (server.opened.at(-1) === socket) continue;
        } else {
          await clock.pass(random() * 3000);
        }
        const now = server.opened.at(-1);
        if (now?.readyState === 0 && random() < 0.7) server.accept(now);
        if (connection.state.kind === 'signed-out') {
          // Three refusals in a row end the sign-in; what was held goes with it, so start over.
          expected.splice(0, Infinity, ...server.typed);
          connection.revive();
        }
      }
      sign.fails = false;
      for (let turn = 0; turn < 10; turn++) {
        await clock.pass(10_000);
        if (server.last.readyState === 0) server.accept(server.last);
        server.pump(server.last);
        server.last.deliver();
        screen.show();
      }
      expect(connection.state).toEqual({ kind: 'live' });
      expect(printed).toBeGreaterThan(500);
      expect(screen.bytes).toEqual(server.output);
      expect(server.typed).toEqual(expected);
      await clock.pass(1000);
      expect(server.last.acknowledged).toBe(server.output.length - server.base);
    },
  );
});

describe('a connection', () => {
  it('shows a snapshot and what follows, and acknowledges what was shown', async () => {
    const one = world();
    one.server.print(1, 2, 3);
    one.connection.start();
    await settled();
    one.server.accept(one.server.last);
    one.server.pump(one.server.last);
    one.server.last.deliver();
    expect(one.server.last.acknowledged).toBe(0);
    await one.clock.pass(1000);
    expect(one.server.last.acknowledged).toBe(0); // nothing was shown yet
    one.screen.show();
    await one.clock.pass(1000);
    expect(one.server.last.acknowledged).toBe(3);
    expect(one.screen.bytes).toEqual([1, 2, 3]);
  });

  it('goes on by number after a cut', async () => {
    const one = world();
    one.server.print(1, 2, 3);
    await live(one);
    one.server.last.end();
    one.server.print(4, 5);
    expect(one.connection.state.kind).toBe('reconnecting');
    await one.clock.pass(300);
    expect(one.server.last.url.searchParams.get('seen')).toBe('3');
    attach(one);
    expect(one.screen.bytes).toEqual([1, 2, 3, 4, 5]);
  });

  it('holds what is typed while it is cut, and sends it in order and in the same pieces', async () => {
    const one = world();
    await live(one);
    expect(one.connection.type(text('a'))).toBe('sent');
    one.server.last.end();
    expect(one.connection.type(text('b'))).toBe('held');
    expect(one.connection.type(text('\x1b[H'))).toBe('held');
    expect(one.held).toEqual([1, 4]);
    await one.clock.pass(300);
    attach(one);
    expect(one.connection.type(text('d'))).toBe('sent');
    expect(typed(one)).toBe('ab\x1b[Hd');
    expect(one.server.inputFrames).toEqual([1, 1, 3, 1]);
    expect(one.held.at(-1)).toBe(0);
  });

  it('holds what is typed into a socket that is closing', async () => {
    const one = world();
    await live(one);
    one.server.last.readyState = 2;
    expect(one.connection.type(text('b'))).toBe('held');
  });

  it('refuses more than it may hold, whole', async () => {
    const one = world();
    await live(one);
    one.server.last.end();
    expect(one.connection.type(new Uint8Array(MAX_HELD_BYTES - 1))).toBe('held');
    expect(one.connection.type(text('ab'))).toBe('full');
    expect(one.connection.type(text('c'))).toBe('held');
    one.connection.drop();
    expect(one.held.at(-1)).toBe(0);
  });

  it('refuses more than a slow line may have waiting', async () => {
    const one = world();
    await live(one);
    one.server.last.bufferedAmount = 4 << 20;
    expect(one.connection.type(text('a'))).toBe('full');
  });

  it('cuts a long input into frames', async () => {
    const one = world();
    await live(one);
    one.connection.type(new Uint8Array(MAX_INPUT_BYTES + 5));
    expect(one.server.inputFrames).toEqual([MAX_INPUT_BYTES, 5]);
  });

  it('waits longer from failure to failure, and from the beginning after a good connection', async () => {
    const one = world();
    await live(one);
    const waits: number[] = [];
    for (let turn = 0; turn < 8; turn++) {
      one.server.last.end(turn === 0 ? 1006 : 1011);
      const { state } = one.connection;
      if (state.kind !== 'reconnecting' || state.retryAt === null) throw new Error(state.kind);
      waits.push(state.retryAt - one.clock.now());
      await one.clock.pass(state.retryAt - one.clock.now());
    }
    expect(waits[0]).toBeLessThanOrEqual(250);
    expect(waits[7]).toBeGreaterThanOrEqual(6000);
    expect(Math.max(...waits)).toBeLessThanOrEqual(8000);
    attach(one);
    one.server.last.end();
    const { state } = one.connection;
    expect(
      state.kind === 'reconnecting' ? (state.retryAt ?? Infinity) - one.clock.now() : Infinity,
    ).toBeLessThanOrEqual(250);
  });

  it('tries at once when it is told to, and only one connection at a time', async () => {
    const one = world();
    await live(one);
    one.server.last.end(1013, 'Too many terminals');
    expect(one.connection.state).toMatchObject({ kind: 'reconnecting', reason: 'Too many terminals' });
    one.connection.retryNow();
    one.connection.retryNow();
    await settled();
    expect(one.server.opened.length).toBe(2);
    await one.clock.pass(10_000);
    expect(one.server.opened.length).toBe(2);
    attach(one);
    one.connection.retryNow();
    await settled();
    expect(one.server.opened.length).toBe(2);
  });

  it('gives up a try that hangs when the network comes back', async () => {
    const one = world();
    await live(one);
    one.connection.suspect('offline');
    await one.clock.pass(3000);
    expect(one.server.opened.length).toBe(2);
    one.connection.retryNow();
    await settled();
    expect(one.server.opened.length).toBe(3);
    expect(one.server.opened[1]?.readyState).toBe(3);
  });

  it('gives up a try that began without a network as soon as there is one', async () => {
    const one = world();
    await live(one);
    one.connection.suspect('offline');
    await one.clock.pass(300);
    one.connection.retryNow();
    await settled();
    expect(one.server.opened.length).toBe(2);
    one.connection.retryNow(true);
    await settled();
    expect(one.server.opened.length).toBe(3);
  });

  it('gives up a server that does not answer', async () => {
    const one = world();
    one.connection.start();
    await one.clock.pass(OPEN_TIMEOUT_MS + 1);
    expect(one.connection.state).toMatchObject({ kind: 'reconnecting' });
  });

  it('asks for a new token when the last was refused, and stops when that does not help', async () => {
    const one = world();
    await live(one);
    one.server.last.end(1008, 'Invalid authentication token');
    await settled();
    expect(one.sign.renewed).toBe(1);
    attach(one);
    for (let turn = 0; turn < 3; turn++) {
      one.server.last.end(1008, 'Authentication required');
      await settled();
    }
    expect(one.connection.state).toEqual({ kind: 'signed-out' });
    expect(one.clock.waiting).toBe(0);
  });

  it('keeps asking for a new token when the question failed', async () => {
    const one = world();
    await live(one);
    one.sign.fails = true;
    one.server.last.end(1008, 'Invalid authentication token');
    await one.clock.pass(20_000);
    expect(one.connection.state.kind).toBe('reconnecting');
    one.sign.fails = false;
    const before = one.sign.renewed;
    await one.clock.pass(8000);
    expect(one.sign.renewed).toBe(before + 1);
  });

  it('says that nobody is signed in', async () => {
    const one = world();
    one.sign.token = null;
    one.connection.start();
    await settled();
    expect(one.connection.state).toEqual({ kind: 'signed-out' });
  });

  it('says why it was refused, and tries again only when asked', async () => {
    const one = world();
    await live(one);
    one.server.last.end(1008, 'The branch is used by another session');
    expect(one.connection.state).toEqual({
      kind: 'refused',
      reason: 'The branch is used by another session',
      final: false,
    });
    expect(one.connection.type(text('a'))).toBe('closed');
    await one.clock.pass(60_000);
    expect(one.server.opened.length).toBe(1);
    one.connection.revive();
    await settled();
    expect(one.server.opened.length).toBe(2);
    one.server.last.end(1008, 'Session not found');
    expect(one.connection.state).toMatchObject({ kind: 'refused', final: true });
  });

  it('ends with the session, and revives it when asked', async () => {
    const one = world();
    one.server.print(1);
    await live(one);
    one.server.last.end(1000, 'Terminal session ended');
    expect(one.connection.state).toEqual({ kind: 'ended' });
    await one.clock.pass(60_000);
    expect(one.server.opened.length).toBe(1);
    one.server.restart();
    one.server.output = [7];
    one.server.base = 0;
    one.connection.revive();
    await settled();
    attach(one);
    expect(one.screen.bytes).toEqual([7]);
    expect(one.connection.state).toEqual({ kind: 'live' });
  });

  it('mends a gap and a broken frame with a snapshot', async () => {
    const one = world();
    one.server.print(1, 2, 3);
    await live(one);
    one.server.print(4, 5, 6);
    one.server.last.sent = 5;
    one.server.pump(one.server.last);
    one.server.last.deliver();
    await one.clock.pass(300);
    expect(one.server.last.url.searchParams.get('seen')).toBe(null);
    attach(one);
    expect(one.screen.bytes).toEqual([1, 2, 3, 4, 5, 6]);
    one.server.last.put('nonsense');
    one.server.last.deliver();
    expect(one.connection.state.kind).toBe('reconnecting');
  });

  it('pays no attention to a connection that it gave up', async () => {
    const one = world();
    await live(one);
    const old = one.server.last;
    const { onmessage, onclose } = old;
    one.connection.suspect('offline');
    await one.clock.pass(300);
    attach(one);
    expect([old.onmessage, old.onclose]).toEqual([null, null]);
    expect([onmessage, onclose]).not.toContain(null);
    expect(one.connection.state).toEqual({ kind: 'live' });
  });

  it('leaves nothing running when it is closed', async () => {
    for (const when of ['connecting', 'live', 'waiting'] as const) {
      const one = world();
      if (when === 'connecting') one.connection.start();
      else await live(one);
      if (when === 'waiting') one.server.last.end();
      one.connection.close();
      await settled();
      expect(one.connection.state).toEqual({ kind: 'closed' });
      expect(one.server.sockets.size).toBe(0);
      expect(one.clock.waiting).toBe(0);
    }
  });

  it('types nothing and gives no size as a viewer', async () => {
    const one = world(1, 'view');
    one.connection.fit({ columns: 100, rows: 30 });
    await live(one);
    expect(one.connection.type(text('a'))).toBe('closed');
    one.connection.claim();
    expect(one.server.last.texts).toEqual(['{"type":"role","role":"view"}']);
    expect(one.sizes.at(-1)).toEqual([{ columns: 80, rows: 24 }, false]);
  });
});

describe('the size', () => {
  const ours = { columns: 100, rows: 30 };
  const theirs = { columns: 90, rows: 40 };
  const tell = (one: World, size: { columns: number; rows: number }) => {
    one.server.last.put(JSON.stringify({ type: 'size', cols: size.columns, rows: size.rows }));
    one.server.last.deliver();
    one.screen.show();
  };

  it('is said as soon as the connection is open', async () => {
    const one = world();
    one.connection.fit(ours);
    one.connection.start();
    await settled();
    one.server.last.open();
    expect(one.server.last.texts).toEqual(['{"type":"resize","cols":100,"rows":30}']);
  });

  it('is not taken by a page that nobody sees, until somebody does', async () => {
    const one = world();
    one.sign.visible = false;
    one.connection.fit(ours);
    await live(one);
    expect(one.server.last.texts).toEqual([]);
    one.sign.visible = true;
    one.connection.claim();
    expect(one.server.last.texts).toEqual(['{"type":"resize","cols":100,"rows":30}']);
  });

  it('does not flicker while the server catches up with ours', async () => {
    const one = world();
    one.connection.fit(ours);
    await live(one);
    tell(one, { columns: 80, rows: 24 });
    await one.clock.pass(100);
    tell(one, ours);
    await one.clock.pass(SIZE_GRACE_MS * 2);
    expect(one.screen.sizes).toEqual([ours]);
  });

  it('follows another viewer, and is taken back by typing here', async () => {
    const one = world();
    one.connection.fit(ours);
    await live(one);
    await one.clock.pass(SIZE_GRACE_MS * 2);
    tell(one, theirs);
    expect(one.sizes.at(-1)).toEqual([theirs, false]);
    tell(one, ours); // the server gives it back to whoever types
    expect(one.sizes.at(-1)).toEqual([ours, true]);
    tell(one, theirs);
    one.connection.claim();
    expect(one.server.last.texts.at(-1)).toBe('{"type":"resize","cols":100,"rows":30}');
    one.screen.show();
    expect(one.screen.sizes.at(-1)).toEqual(ours);
  });

  it('is theirs when a size of theirs stays for long', async () => {
    const one = world();
    one.connection.fit(ours);
    await live(one);
    tell(one, theirs);
    await one.clock.pass(SIZE_GRACE_MS * 2);
    expect(one.sizes.at(-1)).toEqual([theirs, false]);
  });
});
