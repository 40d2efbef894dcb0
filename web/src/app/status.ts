import type { ListedEnvironment, SessionLine } from '@/api/types';
import type { StatusKind } from '@/ui/status';

export type Shown = { kind: StatusKind; word: string };
type EnvironmentState = Pick<ListedEnvironment, 'status' | 'cloneStatus'>;

/** How an environment's state is shown. Pure. */
export function environmentStatus({ status, cloneStatus }: EnvironmentState): Shown {
  switch (status) {
    case 'starting':
      return { kind: 'working', word: 'Starting' };
    case 'stopped':
      return { kind: 'idle', word: 'Stopped' };
    case 'error':
      return { kind: 'failed', word: 'Failed' };
    case 'running':
      if (cloneStatus === 'failed') return { kind: 'failed', word: 'Clone failed' };
      if (cloneStatus === 'pending' || cloneStatus === 'cloning') return { kind: 'working', word: 'Cloning' };
      return { kind: 'ready', word: 'Running' };
    default:
      return { kind: 'unknown', word: 'Unknown' };
  }
}

/** How a session's state is shown: `active` means that a terminal is attached. Pure. */
export function sessionStatus({ status }: Pick<SessionLine, 'status'>): Shown {
  switch (status) {
    case 'active':
      return { kind: 'ready', word: 'Active' };
    case 'inactive':
      return { kind: 'idle', word: 'Idle' };
    case 'dead':
      return { kind: 'ended', word: 'Ended' };
    default:
      return { kind: 'unknown', word: 'Unknown' };
  }
}

export type Attention = {
  id: string;
  title: string;
  /** Why, in a few words. */
  why: string;
  details?: string | undefined;
  kind: StatusKind;
  to: string;
  environmentId: string;
};

/** What waits for the person: environments that could not be started or cloned. Pure. */
export function attention(environments: readonly ListedEnvironment[]): Attention[] {
  return environments.flatMap((one) => {
    const { kind, word } = environmentStatus(one);
    if (kind !== 'failed') return [];
    return [
      {
        id: one.id,
        title: one.name,
        why: word,
        details: (one.status === 'error' ? one.reason : one.cloneReason) ?? undefined,
        kind,
        to: `/e/${one.id}`,
        environmentId: one.id,
      },
    ];
  });
}

/** The sessions one can go to, in the order of the sidebar. Pure. */
export function livingSessions(environments: readonly ListedEnvironment[]): SessionLine[] {
  return environments.flatMap((one) => one.sessions.filter((session) => session.status !== 'dead'));
}

/** The id before or after the current one, round the end. Pure. */
export function neighbour(
  ids: readonly string[],
  current: string | undefined,
  by: 1 | -1,
): string | undefined {
  if (ids.length === 0) return undefined;
  const at = current === undefined ? -1 : ids.indexOf(current);
  if (at === -1) return by === 1 ? ids[0] : ids.at(-1);
  return ids[(at + by + ids.length) % ids.length];
}
