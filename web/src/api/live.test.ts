import { QueryClient, QueryObserver } from '@tanstack/react-query';
import { expect, it, vi } from 'vitest';
import type { ConnectionState, EventSource, ServerEvent } from './event-stream';
import { keepFresh, staleKeys } from './live';

/** The events client's outside, driven by the test. */
function switchboard() {
  let state: ConnectionState = { state: 'live' };
  const hear: ((event: ServerEvent) => void)[] = [];
  const watchers: (() => void)[] = [];
  const events = {
    getState: () => state,
    onEvent: (listener: (event: ServerEvent) => void) => {
      hear.push(listener);
      return () => undefined;
    },
    onGap: () => () => undefined,
    watch: (watcher: () => void) => {
      watchers.push(watcher);
      return () => undefined;
    },
  } as unknown as EventSource;
  return {
    events,
    say: (event: ServerEvent) => hear.forEach((listener) => listener(event)),
    become: (next: ConnectionState) => {
      state = next;
      watchers.forEach((watcher) => watcher());
    },
  };
}

it('reads a list once for many events of a moment', async () => {
  const { events, say } = switchboard();
  const queries = new QueryClient();
  const read = vi.fn(() => Promise.resolve([]));
  const end = new QueryObserver(queries, { queryKey: ['environments'], queryFn: read }).subscribe(
    () => undefined,
  );
  await vi.waitFor(() => expect(queries.getQueryData(['environments'])).toEqual([]));
  const stop = keepFresh(queries, events);
  for (let count = 0; count < 50; count += 1) say({ type: 'environment.changed', id: 'e1' });
  await vi.waitFor(() => expect(read).toHaveBeenCalledTimes(2));
  say({ type: 'git.changed', sessionId: 's1' });
  await new Promise((resolve) => setTimeout(resolve, 200));
  expect(read).toHaveBeenCalledTimes(2);
  stop();
  end();
});

it('lets a slow reading come to its end, and reads once more where it became old meanwhile', async () => {
  const { events, say } = switchboard();
  const queries = new QueryClient();
  const answers: ((value: string) => void)[] = [];
  const cut = vi.fn();
  const end = new QueryObserver(queries, {
    queryKey: ['git', 'diff', 's1'],
    queryFn: ({ signal }) => {
      signal.addEventListener('abort', cut);
      return new Promise<string>((resolve) => answers.push(resolve));
    },
  }).subscribe(() => undefined);
  answers[0]?.('first');
  await vi.waitFor(() => expect(queries.getQueryData(['git', 'diff', 's1'])).toBe('first'));
  const stop = keepFresh(queries, events);
  const gathered = () => new Promise((resolve) => setTimeout(resolve, 150));
  for (let count = 0; count < 3; count += 1) {
    say({ type: 'git.changed', sessionId: 's1' });
    await gathered();
  }
  expect(answers).toHaveLength(2);
  answers[1]?.('second');
  await vi.waitFor(() => expect(answers).toHaveLength(3));
  answers[2]?.('third');
  await vi.waitFor(() => expect(queries.getQueryData(['git', 'diff', 's1'])).toBe('third'));
  await gathered();
  expect(answers).toHaveLength(3);
  expect(cut).not.toHaveBeenCalled();
  stop();
  end();
});

it('reads again what failed while the server was away', async () => {
  const { events, become } = switchboard();
  const queries = new QueryClient({ defaultOptions: { queries: { retry: false } } });
  const read = vi.fn(() => Promise.resolve('here')).mockRejectedValueOnce(new Error('away'));
  const end = new QueryObserver(queries, { queryKey: ['me'], queryFn: read }).subscribe(() => undefined);
  const stop = keepFresh(queries, events);
  await vi.waitFor(() => expect(queries.getQueryState(['me'])?.status).toBe('error'));
  become({ state: 'waiting', at: 0, attempt: 1 });
  become({ state: 'live' });
  await vi.waitFor(() => expect(queries.getQueryData(['me'])).toBe('here'));
  stop();
  end();
});

it('reads the inbox again when something is asked or answered, and an agent’s prompts when it moves on', () => {
  expect(staleKeys({ type: 'approval.changed', id: 'p1', sessionId: 's1' })).toEqual([['approvals']]);
  expect(staleKeys({ type: 'session.changed', id: 's1', environmentId: 'e1' })).toContainEqual([
    'prompts',
    's1',
  ]);
});
