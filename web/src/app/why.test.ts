import { describe, expect, it } from 'vitest';
import { environmentStatus } from './status';
import { sessionWhy, whyOf } from './why';

const environment = (fields: Partial<Parameters<typeof whyOf>[0]> = {}) => ({
  status: 'running',
  cloneStatus: 'ready',
  desired: 'running',
  statusSince: '2026-11-24T10:00:00.000Z',
  ...fields,
});

describe('why something is as it is', () => {
  it('is not asked of an environment that runs', () => {
    expect(whyOf(environment())).toBeUndefined();
    expect(whyOf(environment({ cloneStatus: 'none' }))).toBeUndefined();
  });

  it('is told of every other one, with the button of the way on', () => {
    const states: [Parameters<typeof environment>[0], string | undefined][] = [
      [{ status: 'stopped' }, 'Start'],
      [{ status: 'error' }, 'Try again'],
      [{ cloneStatus: 'failed' }, 'Try again'],
      [{ status: 'starting' }, undefined],
      [{ cloneStatus: 'cloning' }, undefined],
      [{ desired: 'stopped' }, undefined],
    ];
    for (const [fields, action] of states) {
      const why = whyOf(environment(fields));
      expect(why?.reason).toBeTruthy();
      expect(why?.action).toBe(action);
    }
  });

  it('is what the server says, where it says something', () => {
    expect(whyOf(environment({ status: 'error', reason: 'No disk', wayOn: 'Buy one.' }))).toEqual({
      reason: 'No disk',
      wayOn: 'Buy one.',
      since: '2026-11-24T10:00:00.000Z',
      action: 'Try again',
    });
    expect(whyOf(environment({ cloneStatus: 'failed', cloneReason: 'No access' }))?.reason).toBe('No access');
  });

  it('of an environment that is being stopped is not that it runs', () => {
    expect(environmentStatus(environment({ desired: 'stopped' }))).toEqual({
      kind: 'working',
      word: 'Stopping',
    });
  });

  it('is told of sessions that are not in use', () => {
    expect(sessionWhy({ status: 'active' })).toBeUndefined();
    expect(sessionWhy({ status: 'inactive' })).toBeTruthy();
    expect(sessionWhy({ status: 'dead', reason: 'It was ended' })).toBe('It was ended');
    expect(sessionWhy({ status: 'active', agentState: 'working' })).toBeUndefined();
    expect(sessionWhy({ status: 'active', agentState: 'error', agentMessage: 'No key' })).toBe('No key');
  });
});
