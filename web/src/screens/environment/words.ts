import type { RecordedPush } from '@/api/environment';
import type { Branch } from '@/api/git';
import type { JobState } from '@/api/sessions';
import type { Kept, Session } from '@/api/types';
import type { Shown } from '@/app/status';
import type { Tone } from '@/ui/badge';

export function counted(count: number, one: string, many = `${one}s`): string {
  return `${count} ${count === 1 ? one : many}`;
}

/** How a setup or a command is. Pure. */
export function jobStatus(status: JobState): Shown {
  switch (status) {
    case 'running':
      return { kind: 'working', word: 'Running' };
    case 'succeeded':
      return { kind: 'ready', word: 'Done' };
    case 'failed':
      return { kind: 'failed', word: 'Failed' };
    case 'interrupted':
      return { kind: 'ended', word: 'Stopped' };
    case 'none':
      return { kind: 'idle', word: 'Not run' };
  }
}

/** What the probe of the sandbox's walls found, in short and in full. Pure. */
export function isolationShown(
  isolation: string | null | undefined,
): { word: string; tone: Tone; full: string } | undefined {
  if (isolation === null || isolation === undefined || isolation === '') return undefined;
  return /not verified/iu.test(isolation)
    ? { word: 'Isolation not verified', tone: 'warn', full: isolation }
    : { word: 'Isolated', tone: 'ok', full: isolation };
}

/** How far a branch is from its remote one, in words. Pure. */
export function distance({ ahead, behind }: Pick<Branch, 'ahead' | 'behind'>): string {
  const parts = [
    ...(ahead > 0 ? [`${counted(ahead, 'commit')} to push`] : []),
    ...(behind > 0 ? [`${counted(behind, 'commit')} to pull`] : []),
  ];
  return parts.length === 0 ? 'Up to date' : parts.join(', ');
}

const NONE = /^0*$/u;

/** What a push did to a ref, and to which. Pure. */
export function pushShown(push: Pick<RecordedPush, 'ref' | 'old' | 'new'>): {
  name: string;
  kind: 'branch' | 'tag' | 'ref';
  what: string;
} {
  const [, place, name] = /^refs\/(heads|tags)\/(.+)$/u.exec(push.ref) ?? [];
  const kind = place === 'heads' ? 'branch' : place === 'tags' ? 'tag' : 'ref';
  const what = NONE.test(push.old)
    ? `created at ${short(push.new)}`
    : NONE.test(push.new)
      ? `deleted, was ${short(push.old)}`
      : `${short(push.old)} → ${short(push.new)}`;
  return { name: name ?? push.ref, kind, what };
}

/** How a push ended. Pure. */
export function pushOutcome(outcome: string): Shown {
  switch (outcome) {
    case 'ok':
      return { kind: 'ready', word: 'Pushed' };
    case 'rejected':
      return { kind: 'failed', word: 'Rejected' };
    case 'refused':
      return { kind: 'attention', word: 'Not allowed' };
    case 'failed':
      return { kind: 'failed', word: 'Failed' };
    default:
      return { kind: 'unknown', word: 'Unknown' };
  }
}

export function short(commit: string): string {
  return commit.slice(0, 8);
}

/** What of a deleted session was kept, in a sentence. Pure. */
export function keptSentence({ unpushed, uncommitted }: Pick<Kept, 'unpushed' | 'uncommitted'>): string {
  const what = [
    ...(unpushed > 0 ? [counted(unpushed, 'unpushed commit')] : []),
    ...(uncommitted ? ['uncommitted changes'] : []),
  ];
  return what.length === 0 ? 'Its work' : what.join(' and ');
}

/** Where a session's branch began, in words. Pure. */
export function startedFrom({ startedFrom: start }: Pick<Session, 'startedFrom'>): string | undefined {
  if (!start) return undefined;
  const at = start.commit ? ` at ${short(start.commit)}` : '';
  if (start.pullRequest) return `pull request ${start.pullRequest}${at}`;
  if (start.baseBranch) return `${start.baseBranch}${at}`;
  if (start.baseCommit) return `commit ${short(start.commit ?? start.baseCommit)}`;
  return undefined;
}

/** Living sessions first, those with the latest activity first. Pure. */
export function byActivity(sessions: readonly Session[]): { living: Session[]; ended: Session[] } {
  const at = (session: Session) => Date.parse(session.lastActivity ?? session.createdAt);
  const sorted = [...sessions].sort((a, b) => at(b) - at(a));
  return {
    living: sorted.filter(({ status }) => status !== 'dead'),
    ended: sorted.filter(({ status }) => status === 'dead'),
  };
}
