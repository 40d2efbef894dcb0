import type { CoolifyApplication, CoolifyConnection } from '@/api/coolify';
import type {
  Deployment,
  DeploymentCheck,
  DeploymentProblem,
  DeploymentWish,
  RollbackCommit,
} from '@/api/deployments';
import type { GitStatus } from '@/api/git';
import type { Shown } from '@/app/status';
import type { Step, StepState } from '@/ui/checklist';

type Health = Pick<Deployment, 'status' | 'health'>;

/** How a deployment stands, in a word and a shape. Pure. */
export function deploymentStatus(
  row: Health & Pick<Deployment, 'live' | 'cancel_wanted' | 'coolify_deployment_id'>,
): Shown {
  if (row.live && row.cancel_wanted && row.status !== 'succeeded')
    return { kind: 'working', word: 'Cancelling' };
  switch (row.status) {
    case 'pending':
      return { kind: 'working', word: row.coolify_deployment_id === null ? 'Asking Coolify' : 'Queued' };
    case 'building':
      return { kind: 'working', word: 'Building' };
    case 'succeeded':
      return healthShown(row);
    case 'failed':
      return { kind: 'failed', word: 'Failed' };
    case 'cancelled':
      return { kind: 'ended', word: 'Cancelled' };
  }
}

function healthShown({ health }: Health): Shown {
  switch (health) {
    case 'waiting':
      return { kind: 'working', word: 'Starting' };
    case 'healthy':
      return { kind: 'ready', word: 'Healthy' };
    case 'unhealthy':
      return { kind: 'attention', word: 'Unhealthy' };
    case 'superseded':
      return { kind: 'idle', word: 'Replaced' };
    default:
      return { kind: 'ready', word: 'Deployed' };
  }
}

const PARTS = ['asked', 'queued', 'building', 'started', 'healthy'] as const;
type Part = (typeof PARTS)[number];

/** How far a deployment has come, and how it stands there. Pure. */
function reached(row: Deployment): { part: Part; state: StepState } {
  switch (row.status) {
    case 'pending':
      return { part: row.coolify_deployment_id === null ? 'asked' : 'queued', state: 'working' };
    case 'succeeded':
      return { part: 'healthy', state: healthState(row) };
    case 'failed':
      return { part: row.coolify_deployment_id === null ? 'asked' : 'building', state: 'failed' };
    case 'cancelled': {
      const early = row.coolify_deployment_id === null ? 'asked' : 'queued';
      return { part: row.building_at === null ? early : 'building', state: 'skipped' };
    }
    default:
      return { part: 'building', state: 'working' };
  }
}

function healthState({ health }: Health): StepState {
  switch (health) {
    case 'waiting':
      return 'working';
    case 'healthy':
    case 'running':
      return 'done';
    case 'unhealthy':
      return 'failed';
    default:
      return 'skipped';
  }
}

/** A deployment as the steps that it takes, one after the other. Pure. */
export function stepsOf(row: Deployment): Step[] {
  const { part, state } = reached(row);
  const at = PARTS.indexOf(part);
  const over = state === 'failed' || state === 'skipped';
  return PARTS.map((id, index) => ({
    id,
    title: titleOf(id, row),
    state: index < at ? 'done' : index === at ? state : over ? 'skipped' : 'waiting',
    note: index === at ? noteHere(row, id) : index < at ? noteBehind(row, id) : undefined,
  }));
}

function titleOf(part: Part, { kind, health }: Deployment): string {
  const back = kind === 'rollback';
  const titles: Record<Part, string> = {
    asked: back ? 'Ask Coolify to roll back' : 'Ask Coolify',
    queued: 'Coolify’s queue',
    building: back ? 'Roll back' : 'Build',
    started: 'Start the new version',
    healthy: health === 'running' ? 'Running' : 'Healthy',
  };
  return titles[part];
}

function noteHere(row: Deployment, part: Part): string | undefined {
  if (part === 'healthy') return healthNote(row);
  if (row.status === 'cancelled') return row.reason ?? 'Cancelled here.';
  if (row.reason !== null && row.reason !== '') return row.reason;
  if (part !== 'queued') return undefined;
  if (row.queue_ahead === null) return 'Waiting for its turn.';
  if (row.queue_ahead === 0) return 'It is the next.';
  return row.queue_ahead === 1
    ? '1 deployment is before it.'
    : `${row.queue_ahead} deployments are before it.`;
}

function healthNote({ health, health_text, reason, ...row }: Deployment): string | undefined {
  switch (health) {
    case 'healthy':
      return worded('After', took(row.ended_at, row.health_at), 1);
    case 'waiting':
      return health_text ? `Coolify says: ${health_text}.` : 'Waiting for the application’s health check.';
    case 'running':
      return 'The application has no health check.';
    case 'superseded':
      return 'A newer deployment took its place.';
    case 'unhealthy':
      return reason ?? (health_text ? `Coolify says: ${health_text}.` : 'The health check fails.');
    default:
      return 'It is not known whether it is healthy.';
  }
}

function noteBehind(row: Deployment, part: Part): string | undefined {
  if (part === 'queued') return worded('Waited', took(row.created_at, row.building_at), 5);
  if (part === 'building') return worded('Took', took(row.building_at, row.ended_at));
  return undefined;
}

function worded(word: string, time: Took | undefined, least = 0): string | undefined {
  return time === undefined || time.seconds < least ? undefined : `${word} ${time.words}`;
}

type Took = { seconds: number; words: string };

/** How long it was between two moments. Pure. */
export function took(from: string | null, to: string | null): Took | undefined {
  if (from === null || to === null) return undefined;
  const seconds = Math.round((Date.parse(to) - Date.parse(from)) / 1000);
  if (!Number.isFinite(seconds) || seconds < 0) return undefined;
  if (seconds < 60) return { seconds, words: `${seconds} s` };
  const minutes = Math.floor(seconds / 60);
  if (minutes < 60) {
    return { seconds, words: seconds % 60 === 0 ? `${minutes} min` : `${minutes} min ${seconds % 60} s` };
  }
  return { seconds, words: `${Math.floor(minutes / 60)} h ${minutes % 60} min` };
}

/** What somebody who cannot see the steps is told of them. Pure. */
export function sentenceOf(row: Deployment): string {
  const { word } = deploymentStatus(row);
  const note = stepsOf(row).find(({ state }) => state === 'working' || state === 'failed')?.note;
  return `${row.app_name}: ${word}${note === undefined ? '' : `. ${note}`}`;
}

/** Whether two hashes, one of which may be cut short, are of one commit. Pure. */
export function sameCommit(one: string | null, other: string | null): boolean {
  if (one === null || other === null || one === '' || other === '') return false;
  return one.startsWith(other) || other.startsWith(one);
}

/** The commit that runs, as far as is known, and whether it is another than was asked for. Pure. */
export function commitOf({ commit, built_commit }: Pick<Deployment, 'commit' | 'built_commit'>): {
  commit: string | null;
  other: boolean;
} {
  return {
    commit: built_commit ?? commit,
    other: commit !== null && built_commit !== null && !sameCommit(commit, built_commit),
  };
}

/** The deployment to show by itself: one that is under way, else the newest. Pure. */
export function currentOf(rows: readonly Deployment[]): Deployment | undefined {
  return rows.find(({ live }) => live) ?? rows[0];
}

/** How an application is, from Coolify's word. Pure. */
export function applicationStatus({ state, health, status }: CoolifyApplication): Shown {
  switch (state) {
    case 'running':
      if (health === 'healthy') return { kind: 'ready', word: 'Healthy' };
      if (health === 'unhealthy') return { kind: 'attention', word: 'Unhealthy' };
      return { kind: 'ready', word: 'Running' };
    case 'starting':
    case 'restarting':
      return { kind: 'working', word: 'Starting' };
    case 'exited':
      return { kind: 'ended', word: 'Stopped' };
    case 'degraded':
      return { kind: 'attention', word: 'Degraded' };
    default:
      return { kind: 'unknown', word: status === '' ? 'Unknown' : status };
  }
}

/** Applications of the same repository first, then by name; only those that all words are found in. Pure. */
export function foundApplications(
  applications: readonly CoolifyApplication[],
  search: string,
): CoolifyApplication[] {
  const words = search.toLowerCase().split(/\s+/u).filter(Boolean);
  return applications
    .filter(({ name, branch, repository, id }) => {
      const text = `${name} ${branch ?? ''} ${repository ?? ''} ${id}`.toLowerCase();
      return words.every((word) => text.includes(word));
    })
    .sort(
      (a, b) =>
        Number(b.matches) - Number(a.matches) || a.name.localeCompare(b.name) || a.id.localeCompare(b.id),
    );
}

/** What of a worktree's state a check depends on, as one text. Pure. */
export function worktreeName(status: GitStatus | undefined): string {
  if (status === undefined) return '';
  const { branch, head, ahead, behind, upstream, files, truncated } = status;
  const names = files.slice(0, 5).map(({ filename }) => filename);
  return JSON.stringify([branch, head, ahead, behind, upstream, files.length, names, truncated]);
}

export type Remedy = 'review' | 'push' | 'none';

/** What a person can do here about what stands in the way. Pure. */
export function remedyOf({ code }: DeploymentProblem): Remedy {
  if (code === 'UNCOMMITTED_WORK') return 'review';
  return code === 'UNPUSHED_WORK' ? 'push' : 'none';
}

/** What to ask for to deploy what the remote has in spite of the problems; nothing where that is no way on. Pure. */
export function pushedWish(check: DeploymentCheck): DeploymentWish | undefined {
  if (check.problems.length === 0) return undefined;
  const known = ['UNCOMMITTED_WORK', 'UNPUSHED_WORK', 'OTHER_BRANCH'];
  if (check.problems.some(({ code }) => !known.includes(code))) return undefined;
  const other = check.problems.some(({ code }) => code === 'OTHER_BRANCH');
  if (!other) return { pushedOnly: true };
  return check.buildsBranch === null ? undefined : { pushedOnly: true, branch: check.buildsBranch };
}

/** The deployment that is under way with the very commit that would be deployed. Pure. */
export function underWay(
  { application, commit }: DeploymentCheck,
  rows: readonly Deployment[],
): Deployment | undefined {
  return rows.find(
    (row) =>
      row.live &&
      row.app_id === application.id &&
      row.pull_request_id === null &&
      (row.status === 'pending' || row.status === 'building') &&
      sameCommit(commit, row.built_commit ?? row.commit),
  );
}

export type RollbackChoice = {
  commit: string;
  /** When it was built, or deployed from here. */
  at: string | null;
  current: boolean;
  /** Whether Coolify still has its image; undefined where it did not say. */
  kept: boolean | undefined;
  deployment: Deployment | undefined;
};

/**
 * What can be gone back to: the commits that Coolify has images of, then those that were deployed
 * from here; what runs now is marked. `kept` is undefined where Coolify could not be asked. Pure.
 */
export function rollbackChoices(
  kept: readonly RollbackCommit[] | undefined,
  history: readonly Deployment[],
  appId: string,
): RollbackChoice[] {
  const deployed = history.filter(
    (row) => row.app_id === appId && row.status === 'succeeded' && row.pull_request_id === null,
  );
  const of = (commit: string) => deployed.find((row) => sameCommit(commitOf(row).commit, commit));
  const choices: RollbackChoice[] = [];
  // What runs now first: an image of the same commit is nothing to go back to.
  for (const { commit, createdAt, current } of [...(kept ?? [])].sort(
    (a, b) => Number(b.current) - Number(a.current),
  )) {
    if (choices.some((one) => sameCommit(one.commit, commit))) continue;
    const deployment = of(commit);
    choices.push({
      commit,
      at: createdAt ?? deployment?.created_at ?? null,
      current,
      kept: true,
      deployment,
    });
  }
  const currentKnown = choices.some(({ current }) => current);
  for (const [index, row] of deployed.entries()) {
    const { commit } = commitOf(row);
    if (commit === null || choices.some((one) => sameCommit(one.commit, commit))) continue;
    choices.push({
      commit,
      at: row.created_at,
      current: !currentKnown && index === 0,
      kept: kept === undefined ? undefined : false,
      deployment: row,
    });
  }
  return choices;
}

export type AbilityRow = { id: string; name: string; state: 'yes' | 'no' | 'unknown'; text: string };

/** What a connection's token may do, and what that is good for. Pure. */
export function abilityRows(abilities: NonNullable<CoolifyConnection['abilities']>): AbilityRow[] {
  const state = (value: boolean | null) => (value === null ? 'unknown' : value ? 'yes' : 'no');
  const text = (value: boolean | null, yes: string, no: string, unknown: string) =>
    value === null ? unknown : value ? yes : no;
  const { deploy, read, readSensitive } = abilities;
  return [
    {
      id: 'deploy',
      name: 'deploy',
      state: state(deploy),
      text: text(
        deploy,
        'Deployments can be started, cancelled and rolled back.',
        'Nothing can be deployed.',
        '',
      ),
    },
    {
      id: 'read',
      name: 'read',
      state: state(read),
      text: text(
        read,
        'Applications and the state of a deployment can be seen.',
        'Applications and the state of a deployment cannot be seen.',
        '',
      ),
    },
    {
      id: 'read:sensitive',
      name: 'read:sensitive',
      state: state(readSensitive),
      text: text(
        readSensitive,
        'Build logs can be read.',
        'Build logs cannot be read; all else works.',
        'Whether build logs can be read shows with the first deployment.',
      ),
    },
  ];
}

/** Which errors are mended in the settings, and not by trying again. Pure. */
export function isOfConnection(code: string): boolean {
  return [
    'DEPLOYMENT_NOT_CONFIGURED',
    'COOLIFY_TOKEN_REJECTED',
    'COOLIFY_API_DISABLED',
    'COOLIFY_ADDRESS_REFUSED',
    'COOLIFY_ABILITY_MISSING',
    'COOLIFY_URL_INVALID',
    'SECRET_UNREADABLE',
  ].includes(code);
}
