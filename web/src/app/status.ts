import type { AgentFields } from '@/api/agents';
import type { ListedEnvironment, SessionLine } from '@/api/types';
import type { StatusKind } from '@/ui/status';

export type Shown = { kind: StatusKind; word: string };
type EnvironmentState = Pick<ListedEnvironment, 'status' | 'cloneStatus'> &
  Partial<Pick<ListedEnvironment, 'desired'>>;

/** Whether an environment that still runs is on its way to being stopped. Pure. */
export function isStopping({ status, desired }: Pick<EnvironmentState, 'status' | 'desired'>): boolean {
  return status === 'running' && desired === 'stopped';
}

/** How an environment's state is shown. Pure. */
export function environmentStatus(environment: EnvironmentState): Shown {
  const { status, cloneStatus } = environment;
  if (isStopping(environment)) return { kind: 'working', word: 'Stopping' };
  switch (status) {
    case 'starting':
      return { kind: 'working', word: 'Starting' };
    case 'stopped':
      return { kind: 'idle', word: 'Stopped' };
    case 'error':
      return { kind: 'failed', word: 'Failed' };
    case 'running':
      if (cloneStatus === 'failed') return { kind: 'failed', word: 'Clone failed' };
      if (cloneStatus === 'repairing') return { kind: 'working', word: 'Repairing' };
      if (cloneStatus === 'pending' || cloneStatus === 'cloning') return { kind: 'working', word: 'Cloning' };
      return { kind: 'ready', word: 'Running' };
    default:
      return { kind: 'unknown', word: 'Unknown' };
  }
}

/**
 * How a session's state is shown: of an agent's what the agent does, of a terminal's whether one is
 * attached. `unseen`: it has finished, and nobody has looked since. Pure.
 */
export function sessionStatus(
  { status, agentState }: Pick<SessionLine, 'status'> & AgentFields,
  unseen = false,
): Shown {
  if (status === 'dead') return { kind: 'ended', word: 'Ended' };
  if (agentState !== undefined && agentState !== null) return agentStatus(agentState, unseen);
  switch (status) {
    case 'active':
      return { kind: 'ready', word: 'Active' };
    case 'inactive':
      return { kind: 'idle', word: 'Idle' };
    default:
      return { kind: 'unknown', word: 'Unknown' };
  }
}

/** How what an agent does is shown. Silence is never shown as an end. Pure. */
function agentStatus(state: string, unseen: boolean): Shown {
  switch (state) {
    case 'starting':
      return { kind: 'working', word: 'Starting' };
    case 'working':
      return { kind: 'working', word: 'Working' };
    case 'waiting_permission':
      return { kind: 'attention', word: 'Asks for permission' };
    case 'waiting_question':
      return { kind: 'attention', word: 'Has a question' };
    case 'done':
      return { kind: unseen ? 'unseen' : 'idle', word: unseen ? 'Finished, not seen' : 'Finished' };
    case 'exited':
      return { kind: unseen ? 'unseen' : 'ended', word: unseen ? 'Exited, not seen' : 'Exited' };
    case 'idle':
      return { kind: 'idle', word: 'Idle' };
    case 'error':
      return { kind: 'failed', word: 'Failed' };
    default:
      return { kind: 'unknown', word: 'Unknown' };
  }
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
