import { describe, expect, it } from 'vitest';
import type { Finding, IsolationHealth } from '@/api/health';
import { findingShown, healthShown, isolationState, readinessShown, stepShown, worstFirst } from './words';

const finding = (name: string, ok: boolean | null): Finding => ({ name, ok, message: name, remedy: null });
const isolation = (fields: Partial<IsolationHealth>): IsolationHealth => ({
  verified: 0,
  waiting: 0,
  unverified: [],
  more: 0,
  ...fields,
});
const unverified = (open: string[], unchecked: string[]) => ({
  environmentId: 'e',
  name: 'shop',
  open,
  unchecked,
});

describe('health', () => {
  it('has a shape and a word of its own for each state', () => {
    const states = (['ok', 'warning', 'failed'] as const).map(healthShown);
    expect(new Set(states.map(({ kind }) => kind)).size).toBe(3);
    expect(new Set(states.map(({ word }) => word)).size).toBe(3);
    expect([true, null, false].map((ok) => findingShown({ ok }).kind)).toEqual([
      'ready',
      'attention',
      'failed',
    ]);
  });

  it('shows first what has to be mended', () => {
    const found = worstFirst([finding('a', true), finding('b', null), finding('c', false)]);
    expect(found.map(({ name }) => name)).toEqual(['c', 'b', 'a']);
  });

  it('never calls isolation verified that was not', () => {
    expect(isolationState(isolation({})).kind).toBe('idle');
    expect(isolationState(isolation({ waiting: 1 })).kind).toBe('working');
    expect(isolationState(isolation({ verified: 2 })).kind).toBe('ready');
    expect(isolationState(isolation({ verified: 2, unverified: [unverified([], ['IPv6'])] })).kind).toBe(
      'attention',
    );
    const open = isolationState(
      isolation({ verified: 2, unverified: [unverified(['10.0.0.1'], [])], more: 1 }),
    );
    expect(open.kind).toBe('failed');
    expect(open.sentence).toContain('2 sandboxes of 4');
  });

  it('of a repeated step is that of its last round', () => {
    expect(stepShown({ rounds: 0, lastError: null }).kind).toBe('working');
    expect(stepShown({ rounds: 9, lastError: null }).kind).toBe('ready');
    expect(stepShown({ rounds: 9, lastError: 'Boom' }).kind).toBe('attention');
  });

  it('for everybody says why the server is not ready', () => {
    const shown = readinessShown({ ready: false, checks: { database: 'ok', runtime: 'no Docker' } }, false);
    expect(shown).toMatchObject({ kind: 'failed', sentence: 'runtime: no Docker' });
    expect(readinessShown(undefined, true).kind).toBe('unknown');
    expect(readinessShown({ ready: true, checks: {} }, false).kind).toBe('ready');
  });
});
