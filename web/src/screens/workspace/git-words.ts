import type { GitStatus, StatusFile } from '@/api/git';
import type { FileStatus } from '../review/diff/files';
import { isUnpublished } from '../review/sync';

/** The one thing to do next with a worktree. */
export type NextStep =
  | { step: 'resolve' }
  | { step: 'commit'; files: number }
  | { step: 'push'; commits: number; first: boolean }
  | { step: 'pull'; commits: number }
  | { step: 'none'; why: string };

/** What git's main button does now: resolve, commit, push, pull, or nothing. Pure. */
export function nextStep(status: GitStatus): NextStep {
  const { files, operation, ahead, behind, detached, head, truncated } = status;
  if (files.some((one) => one.conflicted) || (operation !== null && operation !== ''))
    return { step: 'resolve' };
  if (files.length > 0 || truncated) return { step: 'commit', files: files.length };
  if (detached) return { step: 'none', why: 'On no branch' };
  if (head === null) return { step: 'none', why: 'No commit yet' };
  // What the remote has is brought here first: pushing would be refused.
  if (behind > 0 && ahead === 0) return { step: 'pull', commits: behind };
  if (ahead > 0 || !status.upstream) return { step: 'push', commits: ahead, first: isUnpublished(status) };
  return { step: 'none', why: 'Up to date' };
}

/** A changed file's state, from git's two letters for index and worktree. Pure. */
export function fileStatus({
  status,
  untracked,
  conflicted,
}: Pick<StatusFile, 'status' | 'untracked' | 'conflicted'>): FileStatus {
  if (conflicted) return 'conflict';
  if (untracked) return 'added';
  const letters: Readonly<Record<string, FileStatus>> = {
    A: 'added',
    R: 'renamed',
    C: 'copied',
    D: 'deleted',
    T: 'type',
    M: 'modified',
  };
  // A new file that was changed since is new; a changed one that is gone is gone.
  const order = status.includes('D') && !status.startsWith('A') ? ['D'] : Object.keys(letters);
  const found = order.find((letter) => status.includes(letter));
  return found === undefined ? 'unknown' : (letters[found] ?? 'unknown');
}

/** The lines of all changed files together. Pure. */
export function totals(files: readonly StatusFile[]): { added: number; removed: number } {
  return files.reduce(
    (sum, file) => ({ added: sum.added + (file.added ?? 0), removed: sum.removed + (file.deleted ?? 0) }),
    { added: 0, removed: 0 },
  );
}

/** Conflicts first, then by name. Pure. */
export function inOrder(files: readonly StatusFile[]): StatusFile[] {
  return [...files].sort(
    (a, b) => Number(b.conflicted) - Number(a.conflicted) || a.filename.localeCompare(b.filename),
  );
}

/** What git was in the middle of, in words. Pure. */
export function operationWord(operation: string): string {
  const known: Readonly<Record<string, string>> = {
    merge: 'A merge',
    rebase: 'A rebase',
    'cherry-pick': 'A cherry-pick',
    revert: 'A revert',
    am: 'Applying patches',
    bisect: 'A bisection',
  };
  return known[operation] ?? operation;
}
