import type { Environment } from '@/api/types';
import type { Step } from '@/ui/checklist';

export type Starting = Pick<
  Environment,
  'status' | 'cloneStatus' | 'reason' | 'cloneReason' | 'repositoryUrl' | 'progress'
>;

const ORDER = ['image', 'sandbox', 'clone'] as const;
type StepId = (typeof ORDER)[number];

/** Which step is under way or was the last, by what the server says. */
function currentStep({ status, progress, cloneStatus }: Starting): StepId | 'done' {
  if (status === 'running') return cloneStatus === 'ready' || cloneStatus === 'none' ? 'done' : 'clone';
  const step = progress?.step;
  if (step === 'clone') return 'clone';
  return step === 'sandbox' ? 'sandbox' : 'image';
}

/**
 * The steps of an environment's start, as a checklist shows them; `undefined` before the server
 * has taken it. Pure.
 */
export function startSteps(environment: Starting | undefined, withRepository: boolean): Step[] {
  const titles: Record<StepId, string> = {
    image: 'Prepare the sandbox image',
    sandbox: 'Start the sandbox',
    clone: 'Clone the repository',
  };
  const ids = ORDER.filter((id) => id !== 'clone' || withRepository);
  const current = environment ? currentStep(environment) : 'image';
  const at = current === 'done' ? ids.length : ids.indexOf(current);
  const failure = environment && startFailure(environment);
  return ids.map((id, index) => {
    const title = titles[id];
    if (index < at) return { id, title, state: 'done' };
    if (index > at) return { id, title, state: 'waiting' };
    if (failure !== undefined) return { id, title, state: 'failed', note: failure };
    if (environment?.status === 'stopped') return { id, title, state: 'waiting', note: 'Stopped' };
    return {
      id,
      title,
      state: 'working',
      note: environment?.progress?.message,
      percent: environment?.progress?.percent ?? null,
    };
  });
}

/** Why the start failed, or undefined where it did not. Pure. */
export function startFailure({ status, cloneStatus, reason, cloneReason }: Starting): string | undefined {
  if (status === 'error') return reason ?? 'The sandbox could not be started.';
  if (cloneStatus === 'failed') return cloneReason ?? 'The repository could not be cloned.';
  return undefined;
}

export function isReady(environment: Starting): boolean {
  return currentStep(environment) === 'done';
}

const MAX_LINES = 200;

/** What each step has said so far. */
export type Logs = Readonly<Record<string, readonly string[]>>;

/** Adds a progress message to its step's log, once; the log keeps the last lines only. Pure. */
export function withMessage(logs: Logs, progress: Environment['progress']): Logs {
  if (!progress || progress.message === '') return logs;
  const id = progress.step === 'sandbox' || progress.step === 'clone' ? progress.step : 'image';
  const lines = logs[id] ?? [];
  if (lines.at(-1) === progress.message) return logs;
  return { ...logs, [id]: [...lines, progress.message].slice(-MAX_LINES) };
}
