import type { AgentFields } from '@/api/agents';
import type { ListedEnvironment, SessionLine } from '@/api/types';
import { environmentStatus, isStopping } from './status';

type EnvironmentState = Pick<
  ListedEnvironment,
  'status' | 'cloneStatus' | 'desired' | 'statusSince' | 'reason' | 'cloneReason' | 'wayOn' | 'progress'
>;

/** Why something is not simply at work, and what its owner can do. */
export type Why = {
  /** In a sentence. */
  reason: string;
  wayOn: string | undefined;
  /** Since when; undefined where the server does not say. */
  since: string | undefined;
  /** The button that takes the way on; undefined where it goes on by itself. */
  action: 'Start' | 'Try again' | undefined;
};

/** Why an environment is as it is; undefined for one that runs and is ready. Pure. */
export function whyOf(environment: EnvironmentState): Why | undefined {
  const { status, cloneStatus, reason, cloneReason, progress, statusSince } = environment;
  const wayOn = environment.wayOn ?? undefined;
  const why = (words: string | null | undefined, otherwise: string, action?: Why['action']): Why => ({
    reason: words ?? otherwise,
    wayOn,
    since: statusSince,
    action,
  });
  if (isStopping(environment)) return why(reason, 'It is being stopped.');
  if (status === 'stopped') return why(reason, 'Its sandbox does not run.', 'Start');
  if (status === 'error') return why(reason, 'The sandbox could not be started.', 'Try again');
  if (cloneStatus === 'failed') {
    // The state of the sandbox is older than that of the clone.
    return { ...why(cloneReason, 'The repository could not be cloned.', 'Try again'), since: undefined };
  }
  if (environmentStatus(environment).kind === 'working') return why(progress?.message, 'It is on its way.');
  return undefined;
}

type SessionState = Pick<SessionLine, 'status'> & AgentFields & { reason?: string | null | undefined };

/** Why a session is as it is; undefined for one that is in use or at work. Pure. */
export function sessionWhy(session: SessionState): string | undefined {
  const { status, agentState, agentWaitsFor, agentMessage, reason } = session;
  if (status === 'dead') return reason ?? 'Its terminal has ended; bring it back to go on.';
  switch (agentState) {
    case 'error':
      return agentWaitsFor ?? agentMessage ?? 'Its agent failed; the terminal tells more.';
    case 'exited':
      return 'Its agent has ended; the terminal is still there.';
    case 'unknown':
      return 'Its agent did not say what it does; the terminal shows it.';
    case undefined:
    case null:
      return status === 'inactive' ? 'Nobody has its terminal open; what runs in it goes on.' : undefined;
    default:
      return undefined;
  }
}
