import { describe, expect, it } from 'vitest';
import { isUnseen, parseSeen, SeenStore, withSeen, type Seen } from './seen';

const BEGIN = '2026-01-01T10:00:00.000Z';
const LATER = '2026-01-01T11:00:00.000Z';
const LATEST = '2026-01-01T12:00:00.000Z';
const fresh: Seen = { from: BEGIN, at: {} };

function finished(since = LATER, agentState: 'done' | 'exited' | 'working' = 'done', status = 'active') {
  return { id: 's1', status, agentState, agentStateSince: since };
}

function storage(initial: Record<string, string> = {}) {
  const kept = new Map(Object.entries(initial));
  return {
    kept,
    getItem: (key: string) => kept.get(key) ?? null,
    setItem: (key: string, value: string) => void kept.set(key, value),
  };
}

describe('what was seen', () => {
  it('is not what finished since somebody looked', () => {
    expect(isUnseen(finished(), fresh)).toBe(true);
    expect(isUnseen(finished(LATER, 'exited'), fresh)).toBe(true);
    expect(isUnseen(finished(), withSeen(fresh, 's1', LATER))).toBe(false);
    expect(isUnseen(finished(LATEST), withSeen(fresh, 's1', LATER))).toBe(true);
  });

  it('makes no news of what works, of what has ended, or of what was over before', () => {
    expect(isUnseen(finished(LATER, 'working'), fresh)).toBe(false);
    expect(isUnseen(finished(LATER, 'done', 'dead'), fresh)).toBe(false);
    expect(isUnseen(finished(BEGIN), { from: LATER, at: {} })).toBe(false);
    expect(isUnseen({ ...finished(), agentStateSince: null }, fresh)).toBe(false);
  });

  it('forgets the oldest of very many', () => {
    let seen = fresh;
    for (let count = 0; count < 520; count += 1) seen = withSeen(seen, `s-${count}`, LATER);
    expect(Object.keys(seen.at)).toHaveLength(500);
    expect(seen.at['s-519']).toBe(LATER);
    expect(seen.at['s-0']).toBeUndefined();
  });

  it('is read back whatever stands in the storage', () => {
    for (const broken of [null, '', '{', '7', '{"from":"never"}', '{"from":4,"at":{}}']) {
      expect(parseSeen(broken, LATER)).toEqual({ from: LATER, at: {} });
    }
    expect(parseSeen(JSON.stringify({ from: BEGIN, at: { a: LATER, b: 7 } }), LATEST)).toEqual({
      from: BEGIN,
      at: { a: LATER },
    });
  });

  it('outlives a reload, with the time from which on things are news', () => {
    const place = storage();
    const before = new SeenStore(place, BEGIN);
    before.mark(finished());
    const after = new SeenStore(place, LATEST);
    expect(after.get()).toEqual({ from: BEGIN, at: { s1: LATER } });
    expect(isUnseen(finished(), after.get())).toBe(false);
  });

  it('tells who listens once, and takes over what another tab has seen', () => {
    const place = storage();
    const [here, there] = [new SeenStore(place, BEGIN), new SeenStore(place, BEGIN)];
    let told = 0;
    here.subscribe(() => (told += 1));
    there.mark(finished());
    here.reload();
    expect(told).toBe(1);
    here.mark(finished());
    expect(told).toBe(1);
  });
});
