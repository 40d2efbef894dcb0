import type { QueryClient, QueryKey } from '@tanstack/react-query';
import type { EventSource, ServerEvent } from './event-stream';

const GATHER_MS = 120;

/** Which of the page's copies an event makes old. Pure. */
export function staleKeys(event: ServerEvent): QueryKey[] {
  const { type, id = '', environmentId = '' } = event;
  const [subject] = type.split('.');
  switch (subject) {
    case 'environment':
      // What is said of its disk use goes by whether it runs.
      return [['environments'], ['environment', id], ['disk', id]];
    case 'session':
      return [
        ['environments'],
        ['session', id],
        ...(environmentId === '' ? [['sessions']] : [['sessions', environmentId]]),
        // What an agent has done tells what has become of the prompts that wait for it.
        ['prompts', ...(id === '' ? [] : [id])],
        ['agent-run', ...(id === '' ? [] : [id])],
      ];
    case 'approval':
      return [['approvals']];
    case 'agent':
      return [['agents', 'list']];
    case 'git':
      return gitKeysOf(event);
    case 'job':
      return jobKeysOf(event);
    case 'push':
      return [
        ['pushes', ...(environmentId === '' ? [] : [environmentId])],
        ['git', 'status'],
        ['git', 'branches'],
      ];
    case 'deployment':
      return [['deployments']];
    case 'coolify':
      return [['coolify'], ['deployment-check'], ['deployment-commits']];
    case 'github':
      return [['github']];
    case 'account':
      return [['me']];
    default:
      return subject === undefined || subject === '' ? [] : [[subject]];
  }
}

function gitKeysOf({ sessionId = '' }: ServerEvent): QueryKey[] {
  if (sessionId === '') return [['git']];
  return [...['status', 'diff', 'log'].map((part) => ['git', part, sessionId]), ['git', 'branches']];
}

function jobKeysOf({ type, sessionId = '', job = '' }: ServerEvent): QueryKey[] {
  const session = sessionId === '' ? [] : [sessionId];
  const setup = ['setup', ...session];
  const commands = ['commands', ...session];
  if (job === '' || sessionId === '') return [setup, commands];
  // Only a log that grew is read again; where a job is another, all that shows its state.
  if (job === 'setup') return [type === 'job.output' ? [...setup, 'log'] : setup];
  const name = job.startsWith('command.') ? job.slice('command.'.length) : '';
  if (name === '') return [];
  return [type === 'job.output' ? [...commands, name] : commands];
}

/**
 * Reads copies again as they become old. What is being read when it becomes old again is read once
 * more after that: a copy that takes long would otherwise be begun anew for ever.
 */
function readAgain(queries: QueryClient): (key: QueryKey) => void {
  const reading = new Set<string>();
  const again = new Set<string>();
  const read = async (queryKey: QueryKey): Promise<void> => {
    const name = JSON.stringify(queryKey);
    if (reading.has(name)) {
      again.add(name);
      return;
    }
    reading.add(name);
    await queries.invalidateQueries({ queryKey });
    reading.delete(name);
    if (again.delete(name)) await read(queryKey);
  };
  return (key) => void read(key);
}

/**
 * Makes copies old as events say so; many events of a moment become one reading. A deleted thing's
 * own copy is dropped, never read again. Returns what ends it.
 */
export function keepFresh(queries: QueryClient, events: EventSource): () => void {
  const read = readAgain(queries);
  const waiting = new Map<string, QueryKey>();
  let timer: number | undefined;
  const flush = () => {
    timer = undefined;
    for (const queryKey of waiting.values()) read(queryKey);
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
