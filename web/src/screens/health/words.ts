import type { Finding, Health, IsolationHealth, Readiness, RepeatedStep, RuntimeHealth } from '@/api/health';
import type { Shown } from '@/app/status';
import { counted } from '../environment/words';

/** The state of all in a few words. Pure. */
export function healthShown(state: Health['state']): Shown & { sentence: string } {
  switch (state) {
    case 'ok':
      return { kind: 'ready', word: 'All is well', sentence: 'Every check found what it should.' };
    case 'warning':
      return {
        kind: 'attention',
        word: 'It works, with a doubt',
        sentence: 'Something below will not hold in all cases. What to do is beside it.',
      };
    case 'failed':
      return {
        kind: 'failed',
        word: 'Something does not work',
        sentence: 'What is marked as failed has to be mended. What to do is beside it.',
      };
  }
}

export function findingShown({ ok }: Pick<Finding, 'ok'>): Shown {
  if (ok === true) return { kind: 'ready', word: 'OK' };
  return ok === null ? { kind: 'attention', word: 'Doubt' } : { kind: 'failed', word: 'Failed' };
}

/** What has to be mended first. Pure. */
export function worstFirst(findings: readonly Finding[]): Finding[] {
  const rank = ({ ok }: Finding) => (ok === false ? 0 : ok === null ? 1 : 2);
  return [...findings].sort((one, other) => rank(one) - rank(other));
}

export function runtimeTitle({ name, isDefault }: Pick<RuntimeHealth, 'name' | 'isDefault'>): string {
  return isDefault ? `Runtime ${name}, which new environments get` : `Runtime ${name}, which some still have`;
}

/** What the probes inside the sandboxes found, all together. Pure. */
export function isolationState({ verified, waiting, unverified, more }: IsolationHealth): Shown & {
  sentence: string;
} {
  const count = unverified.length + more;
  const running = verified + waiting + count;
  const later = waiting === 0 ? '' : ` ${counted(waiting, 'sandbox is', 'sandboxes are')} looked at now.`;
  if (running === 0) {
    return { kind: 'idle', word: 'No sandbox runs', sentence: 'Each is looked at from inside as it starts.' };
  }
  if (count === 0) {
    const sentence =
      verified === 0
        ? `None was looked at yet.${later}`
        : `From inside ${verified === 1 ? 'the running sandbox' : `all ${verified} running sandboxes`} neither the host nor private networks could be reached.${later}`;
    return verified === 0
      ? { kind: 'working', word: 'Being looked at', sentence }
      : { kind: 'ready', word: 'Verified', sentence };
  }
  const open = unverified.some((one) => one.open.length > 0);
  return {
    kind: open ? 'failed' : 'attention',
    word: open ? 'Not shut off' : 'Not verified',
    sentence: `${counted(count, 'sandbox', 'sandboxes')} of ${running} ${open ? 'could reach what it must not' : 'could not be looked at in full'}.${later}`,
  };
}

/** How a repeated step does. Pure. */
export function stepShown({ rounds, lastError }: Pick<RepeatedStep, 'rounds' | 'lastError'>): Shown {
  if (lastError !== null) return { kind: 'attention', word: 'Failed last time' };
  return rounds === 0 ? { kind: 'working', word: 'First round' } : { kind: 'ready', word: 'OK' };
}

/** The line for everybody: whether the server can do what it is for, and else why not. Pure. */
export function readinessShown(
  readiness: Readiness | undefined,
  failed: boolean,
): Shown & { sentence: string } {
  if (!readiness) {
    return failed
      ? { kind: 'unknown', word: 'Not known', sentence: 'The server did not tell how it is.' }
      : { kind: 'working', word: 'Asking', sentence: 'Asking the server how it is.' };
  }
  if (readiness.ready) {
    return { kind: 'ready', word: 'Ready', sentence: 'Environments can be made and started.' };
  }
  const wrong = Object.entries(readiness.checks)
    .filter(([, outcome]) => outcome !== 'ok')
    .map(([name, outcome]) => `${name}: ${outcome}`);
  return { kind: 'failed', word: 'Not ready', sentence: wrong.join('; ') };
}
