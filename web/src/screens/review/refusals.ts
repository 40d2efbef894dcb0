import { ApiError } from '@/api/errors';

/** What a person may do next. Those that need something done are offered where it can be done. */
export type Way =
  | 'retry'
  | 'look'
  | 'terminal'
  | 'skip-hooks'
  | 'pull'
  | 'rebase'
  | 'push'
  | 'force'
  | 'fetch'
  | 'github'
  | 'hosts'
  | 'policy'
  | 'account';

const WAYS: Readonly<Record<string, readonly Way[]>> = {
  NOTHING_TO_COMMIT: ['look'],
  GIT_LOCKED: ['retry', 'terminal'],
  BRANCH_MOVED: ['look'],
  MERGE_CONFLICTS: ['terminal', 'look'],
  OPERATION_IN_PROGRESS: ['terminal', 'look'],
  COMMIT_REFUSED: ['retry', 'skip-hooks', 'terminal'],
  GIT_TIMEOUT: ['retry', 'skip-hooks'],
  IDENTITY_INVALID: ['account'],
  WORKTREE_MISSING: ['terminal'],
  REPOSITORY_CORRUPT: [],
  SANDBOX_NOT_RUNNING: ['terminal', 'retry'],
  ENVIRONMENT_STOPPED: ['terminal', 'retry'],
  REPOSITORY_BUSY: ['retry'],
  PUSH_REJECTED: ['pull', 'rebase', 'force'],
  PUSH_NOT_ALLOWED: ['policy'],
  UPSTREAM_REJECTED: ['retry'],
  UPSTREAM_REFUSES_ACCESS: ['github', 'hosts', 'retry'],
  GIT_AUTHENTICATION_REQUIRED: ['github', 'hosts'],
  UPSTREAM_UNAVAILABLE: ['retry'],
  PUSH_UNCONFIRMED: ['fetch', 'retry'],
  PUSH_NOT_SEEN: ['terminal'],
  PUSH_HOOK_REFUSED: ['retry', 'skip-hooks', 'terminal'],
  NO_UPSTREAM: ['push'],
  PULL_DIVERGED: ['rebase', 'terminal'],
  PULL_CONFLICT: ['terminal'],
  UNCOMMITTED_CHANGES: ['look', 'terminal'],
  NOT_ON_BRANCH: ['terminal'],
  REF_NOT_FOUND: [],
  REF_INVALID: [],
  NO_COMMON_COMMIT: [],
  NO_WORKTREE: [],
};

/** The ways on from a refusal of git's, the likeliest first. Pure. */
export function waysOn(error: unknown): readonly Way[] {
  return error instanceof ApiError ? (WAYS[error.code] ?? ['retry']) : ['retry'];
}

const MORE: Readonly<Record<string, string>> = {
  BRANCH_MOVED: 'Somebody committed here, or switched branches, since you looked. What you wrote is kept.',
  PUSH_NOT_ALLOWED: 'The push policy of the environment decides which branches may be pushed.',
};

/** A sentence beside the server's own; undefined where that says it all. Pure. */
export function moreAbout(error: unknown): string | undefined {
  return error instanceof ApiError ? MORE[error.code] : undefined;
}

const PROGRAMS = new Set(['COMMIT_REFUSED', 'PUSH_HOOK_REFUSED', 'UPSTREAM_REJECTED', 'GIT_FAILED']);

/** Whether an error's details are what a program printed. Pure. */
export function isOutput(error: unknown): boolean {
  return error instanceof ApiError && (PROGRAMS.has(error.code) || error.details?.includes('\n') === true);
}

/** Whether an error's details speak to programs, where the page has buttons. Pure. */
export function isForPrograms(error: unknown): boolean {
  return error instanceof ApiError && error.code === 'PULL_DIVERGED';
}

// Colours, and what else programs send to a terminal to write in it.
// eslint-disable-next-line no-control-regex
const SEQUENCES = /\x1b(?:\[[0-?]*[ -/]*[@-~]|\][^\x07\x1b]*(?:\x07|\x1b\\))/gu;

/** What a program printed, without its colours. Pure. */
export function withoutColours(text: string): string {
  return text.replaceAll(SEQUENCES, '');
}

/** The files that an error names. Pure. */
export function filesOf(error: unknown): string[] {
  const files = error instanceof ApiError ? error.body.files : undefined;
  return Array.isArray(files) ? files.filter((one) => typeof one === 'string') : [];
}

/** How far two branches are apart, where an error tells. Pure. */
export function apartOf(error: unknown): { ahead: number; behind: number } | undefined {
  if (!(error instanceof ApiError)) return undefined;
  const { ahead, behind } = error.body;
  return typeof ahead === 'number' && typeof behind === 'number' ? { ahead, behind } : undefined;
}
