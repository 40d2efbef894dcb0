import { describe, expect, it } from 'vitest';
import type { ListedEnvironment, SessionLine } from '@/api/types';
import { attention } from './inbox';
import { environmentStatus, livingSessions, neighbour, sessionStatus } from './status';
import { ago } from './time';

function environment(fields: Partial<ListedEnvironment> = {}): ListedEnvironment {
  return {
    id: 'e1',
    userId: 'u1',
    name: 'shop',
    branch: 'main',
    status: 'running',
    cloneStatus: 'ready',
    runtime: 'docker',
    desired: 'running',
    statusSince: '2026-11-24T10:00:00.000Z',
    pushPolicy: 'sessions',
    createdAt: '2026-01-01T00:00:00.000Z',
    updatedAt: '2026-01-01T00:00:00.000Z',
    sessions: [],
    ...fields,
  };
}

function session(id: string, status: string): SessionLine {
  return {
    id,
    environmentId: 'e1',
    name: id,
    tmuxSessionName: id,
    workingDirectory: '/w',
    status,
    gitBranch: null,
    createdAt: '',
    updatedAt: '',
  };
}

describe('what is shown', () => {
  it('never calls an environment ready whose clone is missing', () => {
    const word = (status: string, cloneStatus: string) => environmentStatus({ status, cloneStatus }).word;
    expect(word('running', 'none')).toBe('Running');
    expect(word('running', 'ready')).toBe('Running');
    expect(word('running', 'cloning')).toBe('Cloning');
    expect(word('running', 'failed')).toBe('Clone failed');
    expect(word('error', 'ready')).toBe('Failed');
    expect(word('new-in-a-later-server', 'ready')).toBe('Unknown');
    expect(sessionStatus({ status: 'new' }).kind).toBe('unknown');
  });

  it('counts failures as waiting for the person, with their reason', () => {
    const waiting = attention([
      environment({ id: 'a' }),
      environment({ id: 'b', status: 'error', reason: 'no disk', cloneReason: 'other' }),
      environment({ id: 'c', cloneStatus: 'failed', cloneReason: 'no access' }),
      environment({ id: 'd', status: 'stopped' }),
    ]);
    expect(waiting.map((one) => [one.id, one.details])).toEqual([
      ['b', 'no disk'],
      ['c', 'no access'],
    ]);
  });

  it('goes round the living sessions', () => {
    const ids = livingSessions([
      environment({ sessions: [session('s1', 'active'), session('s2', 'dead')] }),
      environment({ sessions: [session('s3', 'inactive')] }),
    ]).map((one) => one.id);
    expect(ids).toEqual(['s1', 's3']);
    expect(neighbour(ids, 's1', 1)).toBe('s3');
    expect(neighbour(ids, 's3', 1)).toBe('s1');
    expect(neighbour(ids, 's1', -1)).toBe('s3');
    expect(neighbour(ids, undefined, 1)).toBe('s1');
    expect(neighbour([], 's1', 1)).toBeUndefined();
  });

  it('says how long ago, also for clocks that run ahead', () => {
    const now = Date.parse('2026-01-01T12:00:00Z');
    expect(ago('2026-01-01T11:59:31Z', now)).toBe('just now');
    expect(ago('2026-01-01T12:05:00Z', now)).toBe('just now');
    expect(ago('2026-01-01T11:30:00Z', now)).toBe('30m ago');
    expect(ago('2025-12-31T11:30:00Z', now)).toBe('yesterday');
    expect(ago('nonsense', now)).toBe('');
  });
});
