import { describe, expect, it } from 'vitest';
import { ApiError } from '@/api/errors';
import { leftUntil } from './connecting';
import { intervalMs, isFinal, nextFlow, parseKept, reasonOf, safeAddress, type Flow } from './flow';

const begun = {
  device_code: 'handle',
  user_code: 'WDJB-MJHT',
  verification_uri: 'https://github.com/login/device',
  expires_in: 900,
  interval: 5,
};
const waiting = nextFlow({ state: 'starting' }, { type: 'started', flow: begun, now: 1_000 });
const refusal = (status: number, body: Record<string, unknown> = {}) =>
  new ApiError('access_denied', { status, code: 'GITHUB_DEVICE_FLOW_FAILED', body });

describe('the device flow', () => {
  it('waits with the code until it is entered, at the pace that the server last said', () => {
    expect(waiting).toMatchObject({
      state: 'waiting',
      code: 'WDJB-MJHT',
      expiresAt: 901_000,
      intervalMs: 5_000,
    });
    const slower = nextFlow(waiting, {
      type: 'answered',
      answer: { success: false, pending: true, message: 'Slower', interval: 10 },
    });
    expect(slower).toMatchObject({ state: 'waiting', message: 'Slower', intervalMs: 10_000 });
    const done = nextFlow(slower, { type: 'answered', answer: { success: true, message: 'Done' } });
    expect(done).toEqual({ state: 'done', message: 'Done' });
  });

  it('does not end by an answer that comes late, after it was given up', () => {
    const idle = nextFlow(waiting, { type: 'ended' });
    const late: Flow = nextFlow(idle, { type: 'answered', answer: { success: true, message: 'Done' } });
    expect(late).toEqual({ state: 'idle' });
    expect(nextFlow(idle, { type: 'expired' })).toEqual({ state: 'idle' });
  });

  it('ends when the time is over, and says so', () => {
    expect(nextFlow(waiting, { type: 'expired' })).toMatchObject({ state: 'failed' });
  });

  it('ends by what cannot pass, and asks again after what can', () => {
    expect([400, 404, 409].map((status) => isFinal(refusal(status)))).toEqual([true, true, true]);
    expect([0, 429, 502, 503].map((status) => isFinal(refusal(status)))).toEqual([
      false,
      false,
      false,
      false,
    ]);
  });

  it("takes the sentence, not GitHub's word for it", () => {
    expect(reasonOf(refusal(400, { message: 'You said no at GitHub.' })).reason).toBe(
      'You said no at GitHub.',
    );
    expect(reasonOf(refusal(404)).reason).toBe('access_denied.');
  });

  it('keeps a sane pace whatever it is told', () => {
    expect([intervalMs(0), intervalMs(5), intervalMs(9_999), intervalMs(NaN)]).toEqual([
      1_000, 5_000, 60_000, 5_000,
    ]);
  });

  it('links to the web only', () => {
    expect(safeAddress('https://github.com/login/device')).toBe('https://github.com/login/device');
    for (const bad of ['javascript:alert(1)', 'data:text/html,x', 'nonsense', '']) {
      expect(safeAddress(bad)).toBeUndefined();
    }
  });

  it('takes up a flow that was left while its code is good', () => {
    const stored = JSON.stringify(waiting);
    expect(parseKept(stored, 2_000)).toEqual(waiting);
    expect(parseKept(stored, 902_000)).toBeUndefined();
    for (const broken of ['', 'null', '{', '{"state":"waiting"}', null]) {
      expect(parseKept(broken, 0)).toBeUndefined();
    }
  });

  it('counts down', () => {
    expect(leftUntil(901_000, 1_000)).toBe('15:00');
    expect(leftUntil(60_500, 1_000)).toBe('1:00');
    expect(leftUntil(0, 1_000)).toBe('0:00');
  });
});
