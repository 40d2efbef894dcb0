import { Eye, GitMerge, ScanEye, ShieldCheck } from 'lucide-react';
import type { ReactNode } from 'react';
import { Link } from 'react-router';
import { ApiError } from '@/api/errors';
import type { Diff, GitStatus, useGitDiff } from '@/api/git';
import { Button } from '@/ui/button';
import { EmptyState } from '@/ui/empty';
import { ErrorState } from '@/ui/error-state';
import { SkeletonRows } from '@/ui/skeleton';
import { filesWord } from './commit';
import type { ReviewFile } from './diff/files';
import { waysOn } from './refusals';
import { Repair } from './repair';
import { emptySentence, type Scope } from './scope';

/** What stands there when not even the state of the worktree could be read. */
export function NoStatus({
  error,
  busy,
  onRetry,
  sessionId,
  environmentId,
}: {
  error: Error;
  busy: boolean;
  onRetry: () => void;
  sessionId: string;
  environmentId: string;
}) {
  if (error instanceof ApiError && error.code === 'NO_WORKTREE') {
    return (
      <EmptyState icon={ScanEye} title="There is nothing to review">
        This environment has no repository, so git does not know what changed.
      </EmptyState>
    );
  }
  return (
    <div className="flex flex-col items-center">
      <ErrorState title="The changes could not be read" error={error} busy={busy} onRetry={onRetry} />
      <div className="-mt-8 mb-8 flex gap-2">
        <Repair error={error} sessionId={sessionId} environmentId={environmentId} onDone={onRetry} />
        {waysOn(error).includes('terminal') && (
          <Button asChild>
            <Link to={`/s/${sessionId}`}>Open the terminal</Link>
          </Button>
        )}
      </div>
    </div>
  );
}

/** What has to be known before reading: a merge under way, hidden characters, hidden secrets, what is missing. */
export function Notices({
  status,
  diff,
  files,
  sessionId,
  load,
}: {
  status: GitStatus;
  diff: Diff | undefined;
  files: readonly ReviewFile[];
  sessionId: string;
  load: (files: readonly ReviewFile[]) => void;
}) {
  const hidden = files.filter((file) => file.hidden > 0);
  const missing = files.filter((file) => file.patches === undefined && !file.binary);
  const conflicts = status.files.filter((file) => file.conflicted).length;
  return (
    <>
      {(status.operation !== null || conflicts > 0) && (
        <Notice icon={<GitMerge aria-hidden className="size-4 text-warn" />}>
          {status.operation === null
            ? `${filesWord(conflicts)} with conflicts.`
            : `A ${status.operation} is under way${conflicts > 0 ? `, ${filesWord(conflicts)} with conflicts` : ''}.`}{' '}
          Finish it in{' '}
          <Link to={`/s/${sessionId}`} className="font-medium text-accent-fg underline">
            the terminal
          </Link>
          .
        </Notice>
      )}
      {hidden.length > 0 && (
        <Notice icon={<Eye aria-hidden className="size-4 text-warn" />}>
          {hidden.length === 1 ? 'A file has' : `${hidden.length} files have`} characters that nobody would
          see, or that turn the direction of text. They are named where they stand.
        </Notice>
      )}
      {diff?.masked === true && (
        <Notice icon={<ShieldCheck aria-hidden className="size-4 text-note" />}>
          Secrets of your variables stand in these changes. They are hidden here, not in the files.
        </Notice>
      )}
      {diff?.truncated === true && (
        <Notice icon={<ScanEye aria-hidden className="size-4 text-note" />}>
          There is more than comes in one answer
          {missing.length > 0 ? `: ${filesWord(missing.length)} without text so far.` : '.'}{' '}
          {missing.length > 0 && missing.length <= MOST_LOADED && (
            <button
              type="button"
              className="rounded-sm font-medium text-accent-fg underline"
              onClick={() => load(missing)}
            >
              Load them
            </button>
          )}
        </Notice>
      )}
    </>
  );
}

const MOST_LOADED = 40;

function Notice({ icon, children }: { icon: ReactNode; children: ReactNode }) {
  return (
    <div
      role="note"
      className="flex items-start gap-2 border-b border-line bg-sunken px-3 py-2 text-sm text-fg-2"
    >
      <span className="mt-0.5 shrink-0">{icon}</span>
      <p className="min-w-0">{children}</p>
    </div>
  );
}

/** The changes, or why there are none. */
export function DiffBody({
  diff,
  scope,
  files,
  sessionId,
  children,
  onBase,
}: {
  diff: ReturnType<typeof useGitDiff>;
  scope: Scope;
  files: readonly ReviewFile[];
  sessionId: string;
  children: ReactNode;
  onBase: (base: string) => void;
}) {
  if (diff.isError && diff.data === undefined) {
    return (
      <div className="flex flex-col items-center">
        <ErrorState
          title="The changes could not be read"
          error={diff.error}
          busy={diff.isFetching}
          onRetry={() => void diff.refetch()}
        />
        <div className="-mt-8 mb-8 flex gap-2">
          {scope.kind === 'base' && scope.base !== 'main' && (
            <Button onClick={() => onBase('main')}>Compare with main</Button>
          )}
          {waysOn(diff.error).includes('terminal') && (
            <Button asChild>
              <Link to={`/s/${sessionId}`}>Open the terminal</Link>
            </Button>
          )}
        </div>
      </div>
    );
  }
  if (diff.data === undefined) return <SkeletonRows rows={8} label="Loading the changes" />;
  if (files.length === 0) {
    return (
      <EmptyState icon={ScanEye} title="No changes">
        {emptySentence(scope)}
      </EmptyState>
    );
  }
  return children;
}
