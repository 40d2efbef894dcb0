import { useQueries } from '@tanstack/react-query';
import { RefreshCw } from 'lucide-react';
import { useCallback, useMemo, useState } from 'react';
import { fileDiffQuery, type Diff, type DiffOf, type GitStatus } from '@/api/git';
import { useCommands } from '@/app/commands';
import type { CommitOf } from './commit-box';
import type { DiffListHandle } from './diff-list';
import { reviewFiles, withText, type ReviewFile } from './diff/files';
import { inTreeOrder } from './diff/tree';
import type { Choice } from './file-tree';
import type { Scope } from './scope';
import type { useViewed } from './viewed';

/** The files of a diff in the tree's order, with what was fetched for single ones. */
export function useFiles(sessionId: string, of: DiffOf, diff: Diff | undefined) {
  const [asked, setAsked] = useState<readonly ReviewFile[]>([]);
  const whole = useMemo(() => (diff ? inTreeOrder(reviewFiles(diff)) : []), [diff]);
  const missing = new Set(whole.filter((file) => file.patches === undefined).map((file) => file.id));
  const wanted = asked.filter((file) => missing.has(file.id));
  const answers = useQueries({
    queries: wanted.map((file) => fileDiffQuery(sessionId, of, file.name)),
    combine: useCallback(
      (results: { data: Diff | undefined; isFetching: boolean; error: Error | null }[]) =>
        results.map(({ data, isFetching, error }) => ({ data, isFetching, error })),
      [],
    ),
  });
  const found = new Map(wanted.map((file, place) => [file.id, answers[place]]));
  const texts = [...found].flatMap(([id, answer]) => (answer?.data ? [[id, answer.data] as const] : []));
  const files = useFilled(whole, texts);
  return {
    files,
    load: {
      ask: (file: ReviewFile) => setAsked([...asked.filter((one) => one.id !== file.id), file]),
      askAll: (more: readonly ReviewFile[]) =>
        setAsked([...asked.filter((one) => !more.some(({ id }) => id === one.id)), ...more]),
      loading: (file: ReviewFile) => found.get(file.id)?.isFetching === true,
      failure: (file: ReviewFile) => found.get(file.id)?.error ?? undefined,
    },
  };
}

const filled = new WeakMap<Diff, ReviewFile>();

/** Gives files their texts; the same texts make the same files, so that nothing is read twice. */
function useFilled(
  whole: readonly ReviewFile[],
  texts: readonly (readonly [id: string, diff: Diff])[],
): readonly ReviewFile[] {
  const key = texts.map(([id, diff]) => `${id}\n${diff.diff.length}`).join('\n\n');
  return useMemo(() => {
    if (texts.length === 0) return whole;
    const byId = new Map(texts);
    return whole.map((file) => {
      const diff = file.patches === undefined ? byId.get(file.id) : undefined;
      if (!diff) return file;
      const known = filled.get(diff) ?? withText(file, diff);
      filled.set(diff, known);
      return known;
    });
    // The key says all that matters of the texts.
    // eslint-disable-next-line react-hooks/exhaustive-deps
  }, [whole, key]);
}

/** Which files are closed and which large ones are shown. A viewed file begins closed. */
export function useLayout(
  sessionId: string,
  files: readonly ReviewFile[],
  viewed: ReturnType<typeof useViewed>,
) {
  const [changed, setChanged] = useState<ReadonlyMap<string, boolean>>(new Map());
  const [unfolded, setUnfolded] = useState<ReadonlySet<string>>(new Set());
  const marks = viewed.get();
  const closed = useMemo(
    () =>
      new Set(
        files
          .filter((file) => changed.get(file.id) ?? (marks.size > 0 && viewed.has(sessionId, file)))
          .map((file) => file.id),
      ),
    [files, changed, marks, viewed, sessionId],
  );
  return {
    closed,
    unfolded,
    close: (some: readonly ReviewFile[], yes: boolean) =>
      setChanged(new Map([...changed, ...some.map((file) => [file.id, yes] as const)])),
    unfold: (file: ReviewFile) => setUnfolded(new Set([...unfolded, file.id])),
  };
}

/** Which files go into the commit: all but those that were left out. */
export function useChoice(scope: Scope): Choice {
  const [left, setLeft] = useState<ReadonlySet<string>>(new Set());
  const [of, setOf] = useState(scope.kind);
  if (of !== scope.kind) {
    setOf(scope.kind);
    setLeft(new Set());
  }
  return {
    has: (file) => !left.has(file.id),
    set: (files, chosen) => {
      const next = new Set(left);
      for (const { id } of files) {
        if (chosen) next.delete(id);
        else next.add(id);
      }
      setLeft(next);
    },
  };
}

/** What a commit would be made of. Pure. */
export function commitOfScope(
  scope: Scope,
  files: readonly ReviewFile[],
  status: GitStatus,
  choice: Choice,
  truncated: boolean,
): CommitOf | undefined {
  switch (scope.kind) {
    case 'base':
      return undefined;
    case 'staged':
      return { kind: 'staged', count: files.length };
    default:
      // A list that is not whole is nothing to choose from.
      if (status.truncated || (truncated && files.length >= 5_000)) return { kind: 'all' };
      return {
        kind: 'files',
        chosen: files.filter((file) => choice.has(file)),
        all: files.length,
      };
  }
}

/** The keys of a review. */
export function useReviewCommands({
  list,
  look,
  toggleView,
  toggleViewed,
  push,
  pull,
}: {
  list: { readonly current: DiffListHandle | null };
  look: () => void;
  toggleView: (() => void) | undefined;
  toggleViewed: (() => void) | undefined;
  push: () => void;
  pull: () => void;
}) {
  const step = (type: 'file' | 'hunk', by: 1 | -1) => () => list.current?.step(type, by);
  const group = 'Review';
  useCommands([
    { id: 'review.nextFile', title: 'Next file', group, keys: ']', keysOnly: true, run: step('file', 1) },
    {
      id: 'review.previousFile',
      title: 'Previous file',
      group,
      keys: '[',
      keysOnly: true,
      run: step('file', -1),
    },
    {
      id: 'review.nextHunk',
      title: 'Next change',
      group,
      keys: 'Alt+Down',
      keysOnly: true,
      run: step('hunk', 1),
    },
    {
      id: 'review.previousHunk',
      title: 'Previous change',
      group,
      keys: 'Alt+Up',
      keysOnly: true,
      run: step('hunk', -1),
    },
    {
      id: 'review.viewed',
      title: 'Mark the file as viewed, or not',
      group,
      keys: 'm',
      enabled: toggleViewed !== undefined,
      run: () => toggleViewed?.(),
    },
    {
      id: 'review.view',
      title: 'Switch between unified and split',
      group,
      keys: 's',
      enabled: toggleView !== undefined,
      run: () => toggleView?.(),
    },
    {
      id: 'review.refresh',
      title: 'Look again at what changed',
      group,
      keys: 'r',
      icon: RefreshCw,
      run: look,
    },
    { id: 'review.push', title: 'Push', group, keys: 'x u', keywords: 'git push', run: push },
    { id: 'review.pull', title: 'Pull', group, keys: 'x d', keywords: 'git pull', run: pull },
  ]);
}
