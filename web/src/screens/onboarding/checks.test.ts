import { describe, expect, it } from 'vitest';
import { ApiError, errorFrom } from '@/api/errors';
import { readinessFrom, readinessOf } from '@/api/health';
import { bestOf, environmentStep, githubStep, serverStep } from './checks';

describe('the first minutes', () => {
  it('tells why a server is not ready, from its refusal', () => {
    const refusal = errorFrom(
      503,
      { status: 'unavailable', checks: { database: 'ok', runtime: 'The Docker engine does not answer.' } },
      null,
    );
    expect(refusal).toBeInstanceOf(ApiError);
    const step = serverStep(readinessFrom(refusal), false);
    expect(step.state).toBe('failed');
    expect(step.log).toEqual(['runtime: The Docker engine does not answer.']);
  });

  it('takes nothing else for an answer', () => {
    for (const body of [null, 'ok', {}, { status: 'ok' }, { checks: {} }]) {
      expect(readinessOf(body)).toBeUndefined();
    }
    expect(serverStep(undefined, true).state).toBe('failed');
    expect(serverStep(undefined, false).state).toBe('working');
    expect(serverStep({ ready: true, checks: { database: 'ok' } }, false).note).toContain('database');
  });

  it('makes GitHub nobody’s duty', () => {
    const status = {
      connected: false,
      username: null,
      configured: true,
      needsReconnect: false,
      reason: null,
      kind: null,
      scopes: [],
      missingScopes: [],
      installUrl: null,
    };
    expect(githubStep(status, false).state).toBe('waiting');
    expect(githubStep({ ...status, configured: false }, false).state).toBe('skipped');
    expect(githubStep({ ...status, connected: true, username: 'ada' }, false).note).toContain('ada');
    expect(githubStep({ ...status, needsReconnect: true, reason: 'Ended.' }, false).note).toBe('Ended.');
  });

  it('tells of the first environment what matters most', () => {
    const one = (status: string, reason: string | null = null) => ({
      name: 'x',
      status,
      reason,
      cloneStatus: 'ready',
    });
    expect(environmentStep([], false).state).toBe('waiting');
    expect(environmentStep([one('error', 'No room.')], false).note).toBe('x did not start: No room.');
    expect(environmentStep([one('error'), one('starting')], false).state).toBe('working');
    expect(environmentStep([one('stopped'), one('running')], false).state).toBe('done');
    expect(environmentStep([one('stopped')], false).state).toBe('done');
    const cloning = { ...one('running'), cloneStatus: 'cloning' };
    expect(bestOf([cloning, one('running')])?.cloneStatus).toBe('ready');
    expect(bestOf([one('error'), cloning])?.cloneStatus).toBe('cloning');
  });
});
