import type { QueryClient, QueryKey } from '@tanstack/react-query';
import type { EventsClient, ServerEvent } from './events';

const GATHER_MS = 120;

/** Which of the page's copies an event makes old. Pure. */
export function staleKeys(event: ServerEvent): QueryKey[] {
  const { type, id = '', environmentId = '', sessionId = id } = event;
  const [subject] = type.split('.');
  switch (subject) {
    case 'environment':
      return [['environments'], ['environment', id]];
    case 'session':
      return [
        ['environments'],
        ['session', sessionId],
        ...(environmentId === '' ? [['sessions']] : [['sessions', environmentId]]),
      ];
    case 'git':
      return [...['status', 'diff', 'log'].map((part) => ['git', part, sessionId]), ['git', 'branches']];
    case 'push':
      return [
        ['pushes', ...(environmentId === '' ? [] : [environmentId])],
        ['git', 'status'],
        ['git', 'branches'],
      ];
    case 'github':
      return [['github']];
    case 'account':
      return [['me']];
    default:
      return subject === undefined || subject === '' ? [] : [[subject]];
  }
}

/**
 * Makes copies old as events say so; many events of a moment become one reading. A deleted thing's
 * own copy is dropped, never read again. Returns what ends it.
 */
export function keepFresh(queries: QueryClient, events: EventsClient): () => void {
  const waiting = new Map<string, QueryKey>();
  let timer: number | undefined;
  const flush = () => {
    timer = undefined;
    for (const queryKey of waiting.values()) void queries.invalidateQueries({ queryKey });
    waiting.clear();
  };
  const offEvent = events.onEvent((event) => {
    const gone = event.type === 'environment.deleted' || event.type === 'session.deleted';
    for (const key of staleKeys(event)) {
      if (gone && key[1] === event.id) queries.removeQueries({ queryKey: key, type: 'inactive' });
      waiting.set(JSON.stringify(key), key);
    }
    timer ??= window.setTimeout(flush, GATHER_MS);
  });
  const offGap = events.onGap(() => void queries.invalidateQueries());
  // What failed while the server was away is read again once it is back.
  const offState = events.watch(() => {
    if (events.getState().state !== 'live') return;
    void queries.refetchQueries({ predicate: ({ state }) => state.status === 'error', type: 'active' });
  });
  return () => {
    offEvent();
    offGap();
    offState();
    window.clearTimeout(timer);
  };
}
