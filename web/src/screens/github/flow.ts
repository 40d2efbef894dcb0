import { useQueryClient } from '@tanstack/react-query';
import { useCallback, useEffect, useReducer } from 'react';
import { ApiError, explain } from '@/api/errors';
import { askDeviceFlow, beginDeviceFlow, githubKeys, type DeviceFlow, type FlowAnswer } from '@/api/github';

/** A code that waits to be typed at GitHub. Times are milliseconds since the epoch. */
export type Waiting = {
  state: 'waiting';
  handle: string;
  code: string;
  address: string;
  expiresAt: number;
  intervalMs: number;
  /** How it stands, in the server's words. */
  message: string;
};

export type Flow =
  | { state: 'idle' }
  | { state: 'starting' }
  | Waiting
  | { state: 'done'; message: string }
  | { state: 'failed'; reason: string; details?: string | undefined };

export type FlowEvent =
  | { type: 'start' }
  | { type: 'started'; flow: DeviceFlow; now: number }
  | { type: 'answered'; answer: FlowAnswer }
  /** No answer, or none that means anything: asked again. */
  | { type: 'unclear'; message: string }
  | { type: 'failed'; reason: string; details?: string | undefined }
  | { type: 'resumed'; waiting: Waiting }
  | { type: 'expired' }
  | { type: 'ended' };

const LEAST_INTERVAL_MS = 1_000;
const MOST_INTERVAL_MS = 60_000;

/** Between two questions what the server wants, within reason. Pure. */
export function intervalMs(seconds: number): number {
  const ms = Number.isFinite(seconds) ? seconds * 1_000 : 5_000;
  return Math.min(MOST_INTERVAL_MS, Math.max(LEAST_INTERVAL_MS, ms));
}

/** What follows from what happened. Pure. */
export function nextFlow(flow: Flow, event: FlowEvent): Flow {
  switch (event.type) {
    case 'start':
      return { state: 'starting' };
    case 'ended':
      return { state: 'idle' };
    case 'failed':
      return { state: 'failed', reason: event.reason, details: event.details };
    case 'resumed':
      return flow.state === 'idle' ? event.waiting : flow;
    case 'started':
      return {
        state: 'waiting',
        handle: event.flow.device_code,
        code: event.flow.user_code,
        address: event.flow.verification_uri,
        expiresAt: event.now + event.flow.expires_in * 1_000,
        intervalMs: intervalMs(event.flow.interval),
        message: 'Waiting for you to enter the code at GitHub',
      };
    default:
      return flow.state === 'waiting' ? whileWaiting(flow, event) : flow;
  }
}

function whileWaiting(flow: Waiting, event: FlowEvent): Flow {
  switch (event.type) {
    case 'answered':
      if (event.answer.success) return { state: 'done', message: event.answer.message };
      return {
        ...flow,
        message: event.answer.message,
        intervalMs: intervalMs(event.answer.interval),
      };
    case 'unclear':
      return { ...flow, message: event.message };
    case 'expired':
      return { state: 'failed', reason: 'The code was not entered in time. Get a new one to try again.' };
    default:
      return flow;
  }
}

/** Whether a refused question is the end of a flow; else it is asked again. Pure. */
export function isFinal(error: unknown): boolean {
  return error instanceof ApiError && error.status >= 400 && error.status < 500 && error.status !== 429;
}

/** Why a flow ended: its own sentence stands beside GitHub's word for it. Pure. */
export function reasonOf(error: unknown): { reason: string; details?: string | undefined } {
  const { reason, details } = explain(error);
  const sentence = error instanceof ApiError ? error.body.message : undefined;
  return { reason: typeof sentence === 'string' && sentence !== '' ? sentence : reason, details };
}

/** Only an address of the web is made a link. Pure. */
export function safeAddress(address: string): string | undefined {
  try {
    const { protocol } = new URL(address);
    return protocol === 'https:' || protocol === 'http:' ? address : undefined;
  } catch {
    return undefined;
  }
}

const KEY = 'craftastic.github-flow';

function keep(flow: Flow): void {
  try {
    if (flow.state === 'waiting') sessionStorage.setItem(KEY, JSON.stringify(flow));
    else if (flow.state !== 'starting') sessionStorage.removeItem(KEY);
  } catch {
    // Storage is closed: a flow that was left is begun again.
  }
}

/** A flow that was left, by a look at another screen, while its code can still be entered. Pure. */
export function parseKept(stored: string | null, now: number): Waiting | undefined {
  try {
    const value = JSON.parse(stored ?? 'null') as Partial<Waiting> | null;
    const whole =
      value?.state === 'waiting' &&
      [value.handle, value.code, value.address, value.message].every((one) => typeof one === 'string') &&
      typeof value.expiresAt === 'number' &&
      typeof value.intervalMs === 'number';
    return whole && (value.expiresAt ?? 0) > now ? (value as Waiting) : undefined;
  } catch {
    return undefined;
  }
}

function loadKept(): Flow {
  try {
    return parseKept(sessionStorage.getItem(KEY), Date.now()) ?? { state: 'idle' };
  } catch {
    return { state: 'idle' };
  }
}

/** Connects a GitHub account: gets a code, and asks at the server's pace whether it was entered. */
export function useDeviceFlow() {
  const queries = useQueryClient();
  const [flow, tell] = useReducer(nextFlow, undefined, loadKept);
  const { state } = flow;
  const handle = flow.state === 'waiting' ? flow.handle : undefined;
  const interval = flow.state === 'waiting' ? flow.intervalMs : 0;
  const expiresAt = flow.state === 'waiting' ? flow.expiresAt : 0;
  useEffect(() => keep(flow), [flow]);

  useEffect(() => {
    if (state !== 'starting') return;
    const abort = new AbortController();
    beginDeviceFlow(abort.signal).then(
      (begun) => tell({ type: 'started', flow: begun, now: Date.now() }),
      (error: unknown) => {
        if (!abort.signal.aborted) tell({ type: 'failed', ...reasonOf(error) });
      },
    );
    return () => abort.abort();
  }, [state]);

  useEffect(() => {
    if (handle === undefined) return;
    const abort = new AbortController();
    let timer: number | undefined;
    const ask = async () => {
      if (Date.now() >= expiresAt) {
        tell({ type: 'expired' });
        return;
      }
      try {
        tell({ type: 'answered', answer: await askDeviceFlow(handle, abort.signal) });
      } catch (error) {
        if (abort.signal.aborted) return;
        if (isFinal(error)) tell({ type: 'failed', ...reasonOf(error) });
        else tell({ type: 'unclear', message: `${explain(error).reason} Asking again.` });
      }
      if (!abort.signal.aborted) timer = window.setTimeout(() => void ask(), interval);
    };
    timer = window.setTimeout(() => void ask(), interval);
    return () => {
      abort.abort();
      window.clearTimeout(timer);
    };
  }, [handle, interval, expiresAt]);

  useEffect(() => {
    if (state === 'done') void queries.invalidateQueries({ queryKey: githubKeys.all });
  }, [state, queries]);

  return {
    flow,
    start: useCallback(() => tell({ type: 'start' }), []),
    end: useCallback(() => tell({ type: 'ended' }), []),
  };
}
