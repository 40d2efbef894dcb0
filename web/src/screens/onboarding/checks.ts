import type { GitHubStatus } from '@/api/github';
import type { Readiness } from '@/api/health';
import type { ListedEnvironment } from '@/api/types';
import type { Step } from '@/ui/checklist';

type Plain = Pick<Step, 'state' | 'note' | 'log'>;

/** Whether the server and what runs sandboxes are there, or what to do. Pure. */
export function serverStep(readiness: Readiness | undefined, failed: boolean): Plain {
  if (!readiness) {
    return failed
      ? { state: 'failed', note: 'The server could not be asked. Look whether it runs, then check again.' }
      : { state: 'working', note: 'Asking the server…' };
  }
  const names = Object.keys(readiness.checks);
  if (readiness.ready) {
    return { state: 'done', note: names.length === 0 ? 'It is ready.' : `It is ready: ${names.join(', ')}.` };
  }
  const wrong = Object.entries(readiness.checks).filter(([, outcome]) => outcome !== 'ok');
  return {
    state: 'failed',
    note: 'It is not ready. On its machine, craftastic doctor tells what to do.',
    log: wrong.map(([name, outcome]) => `${name}: ${outcome}`),
  };
}

/** Whether a GitHub account is connected, which is nobody's duty. Pure. */
export function githubStep(status: GitHubStatus | undefined, failed: boolean): Plain {
  if (!status) {
    return failed
      ? { state: 'failed', note: 'The server could not tell. Check again.' }
      : { state: 'working', note: 'Asking the server…' };
  }
  if (!status.configured) {
    return {
      state: 'skipped',
      note: 'This server has no GitHub app. Public repositories work all the same; for private ones add a git host.',
    };
  }
  if (status.connected) return { state: 'done', note: `Connected as ${status.username ?? 'your account'}.` };
  if (status.needsReconnect) {
    return { state: 'failed', note: status.reason ?? 'It has to be connected again.' };
  }
  return {
    state: 'waiting',
    note: 'Optional. Needed for private repositories, and to push to GitHub.',
  };
}

/** The environment to go on with: one that runs, with its repository there, else one that runs, else any. Pure. */
export function bestOf<T extends Pick<ListedEnvironment, 'status' | 'cloneStatus'>>(
  environments: readonly T[],
): T | undefined {
  const running = environments.filter((one) => one.status === 'running');
  return (
    running.find((one) => one.cloneStatus === 'ready' || one.cloneStatus === 'none') ??
    running[0] ??
    environments[0]
  );
}

/** Whether there is an environment, and how it is. Pure. */
export function environmentStep(
  environments: readonly Pick<ListedEnvironment, 'name' | 'status' | 'reason' | 'cloneStatus'>[] | undefined,
  failed: boolean,
): Plain {
  if (!environments) {
    return failed
      ? { state: 'failed', note: 'Your environments could not be read. Check again.' }
      : { state: 'working', note: 'Asking the server…' };
  }
  const running = bestOf(environments);
  if (running?.status === 'running') return { state: 'done', note: `${running.name} runs.` };
  const starting = environments.find((one) => one.status === 'starting');
  if (starting) return { state: 'working', note: `${starting.name} is starting.` };
  const [first] = environments;
  if (first?.status === 'error') {
    return {
      state: 'failed',
      note: `${first.name} did not start${first.reason ? `: ${first.reason}` : '.'}`,
    };
  }
  if (first) return { state: 'done', note: `${first.name} is there, and stopped.` };
  return {
    state: 'waiting',
    note: 'A sandbox of your own with a repository in it. The first one takes a while: an image may have to be fetched.',
  };
}
