import { describe, expect, it } from 'vitest';
import type { DiskTier, DiskUse } from '@/api/disk';
import { spaceOf } from '../admin/disk';
import {
  below,
  bytesOf,
  freedSentence,
  fullness,
  nameOf,
  partsOf,
  savedWord,
  tierWords,
  upTo,
} from './words';

const GIB = 1 << 30;

const use = (fields: Partial<DiskUse> = {}): DiskUse => ({
  environmentId: 'e',
  state: 'measured',
  measuredAt: '2026-01-01T00:00:00.000Z',
  measuring: false,
  reason: null,
  totalBytes: 0,
  quotaBytes: null,
  nearQuota: false,
  overQuota: false,
  repositoryBytes: 0,
  homeBytes: 0,
  cacheBytes: 0,
  otherBytes: 0,
  complete: true,
  sessions: [],
  tiers: [],
  ...fields,
});

const tree = (bytes: number): DiskUse['sessions'][number] => ({
  sessionId: null,
  name: null,
  branch: null,
  path: '/home/dev/w/a',
  bytes,
  regenerableBytes: 0,
  state: 'none',
  saved: null,
});

const tier = (number: number, bytes: number): DiskTier => ({ tier: number, bytes, items: [] });

describe('disk use', () => {
  it('has parts that make up the whole', () => {
    const parts = partsOf(
      use({ repositoryBytes: 1, homeBytes: 2, cacheBytes: 3, sessions: [tree(4), tree(5)] }),
    );
    expect(parts.map(({ id, bytes }) => [id, bytes])).toEqual([
      ['worktrees', 9],
      ['repository', 1],
      ['home', 2],
      ['caches', 3],
    ]);
    expect(partsOf(use({ otherBytes: 1 })).at(-1)?.id).toBe('other');
  });

  it('is full only where it is', () => {
    const of = (total: number, overQuota = false) =>
      fullness({ totalBytes: total * GIB, quotaBytes: 10 * GIB, overQuota });
    expect(of(5)).toEqual({ level: 'ok', percent: 50, sentence: '5.0 GiB of 10 GiB' });
    expect(of(9.5).level).toBe('nearly');
    expect(of(9.999).percent).toBe(99);
    expect(of(10.001, true)).toMatchObject({ level: 'over', percent: 101 });
    // What was over its quota stays so until it has come down far enough.
    expect(of(9.5, true)).toMatchObject({ level: 'over', percent: 95 });
    expect(fullness({ totalBytes: GIB, quotaBytes: null, overQuota: false }).percent).toBeUndefined();
    expect(below(10 * GIB)).toBe('9.0 GiB');
  });

  it('is freed in steps that take those before them along', () => {
    const tiers = [tier(3, 4), tier(1, 1), tier(2, 2)];
    expect(upTo(tiers, 2).map((one) => one.tier)).toEqual([1, 2]);
    expect(bytesOf(upTo(tiers, 3))).toBe(7);
    expect(tierWords(1)?.title).toBe('Caches');
    expect(tierWords(4)).toBeUndefined();
  });

  it('is told of in sentences', () => {
    expect(freedSentence(GIB, [])).toBe('1.0 GiB freed.');
    expect(freedSentence(0, [{ path: 'a', why: 'b' }])).toBe('Nothing was freed; 1 thing was kept.');
    expect(savedWord({ saved: false, state: 'living' })).toBe('has work that is only here');
    expect(savedWord({ saved: null, state: 'living' })).toBeUndefined();
    expect(savedWord({ saved: null, state: 'ended' })).toBe('not known whether it is saved');
    expect(nameOf({ name: null, path: '/home/dev/w/old-1/' })).toBe('old-1');
  });

  it('of the server is short where less is free than the floor', () => {
    expect(spaceOf({ freeBytes: 5 * GIB, totalBytes: 20 * GIB, floorBytes: 2 * GIB })).toMatchObject({
      usedPercent: 75,
      floorPercent: 10,
      short: false,
    });
    expect(spaceOf({ freeBytes: GIB, totalBytes: 20 * GIB, floorBytes: 2 * GIB })?.short).toBe(true);
    expect(spaceOf({ freeBytes: null, totalBytes: null, floorBytes: 1 })).toBeUndefined();
  });
});
