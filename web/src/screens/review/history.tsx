import { CloudCheck, Ellipsis, GitCommitHorizontal, MonitorUp } from 'lucide-react';
import { useRef, useState } from 'react';
import { useGitLog, type Commit } from '@/api/git';
import { useRowKeys } from '@/app/rows';
import { Badge } from '@/ui/badge';
import { Button, IconButton } from '@/ui/button';
import { copyText } from '@/ui/code';
import { EmptyState } from '@/ui/empty';
import { ErrorState } from '@/ui/error-state';
import { DropdownMenu } from '@/ui/menu';
import { SkeletonRows } from '@/ui/skeleton';
import { Ago } from '@/ui/time';
import { toast } from '@/ui/toast';
import { Visible } from './visible';

const MOST_REFS = 4;

/** Refs as people call them, without what only git needs. Pure. */
export function refNames(refs: readonly string[]): string[] {
  return refs
    .filter((ref) => ref !== 'HEAD' && !ref.endsWith('/HEAD'))
    .map((ref) => ref.replace(/^refs\/(?:heads|remotes|tags)\//u, ''))
    .slice(0, MOST_REFS);
}

/** The branch's commits, newest first, and which of them the remote has. */
export function History({
  sessionId,
  onCompare,
}: {
  sessionId: string;
  /** Shows what changed since a commit. */
  onCompare: (hash: string) => void;
}) {
  const log = useGitLog(sessionId);
  const list = useRef<HTMLUListElement>(null);
  useRowKeys(list);
  const commits = log.data?.pages.flatMap((page) => page.commits) ?? [];
  if (log.isPending) return <SkeletonRows rows={6} label="Loading the commits" />;
  if (log.isError && commits.length === 0) {
    return (
      <ErrorState
        title="The commits could not be read"
        error={log.error}
        busy={log.isFetching}
        onRetry={() => void log.refetch()}
      />
    );
  }
  if (commits.length === 0) {
    return (
      <EmptyState icon={GitCommitHorizontal} title="No commits yet">
        The first one that you make appears here.
      </EmptyState>
    );
  }
  return (
    <div
      // Scrollable, so it takes the keyboard's focus.
      // eslint-disable-next-line jsx-a11y/no-noninteractive-tabindex
      tabIndex={0}
      role="region"
      aria-label="Commits"
      className="min-h-0 flex-1 overflow-y-auto focus-inset"
    >
      <ul ref={list} className="divide-y divide-line">
        {commits.map((one) => (
          <CommitRow key={one.hash} commit={one} onCompare={() => onCompare(one.hash)} />
        ))}
      </ul>
      {log.hasNextPage && (
        <div className="p-3">
          <Button className="w-full" busy={log.isFetchingNextPage} onClick={() => void log.fetchNextPage()}>
            Show older commits
          </Button>
        </div>
      )}
    </div>
  );
}

function CommitRow({ commit, onCompare }: { commit: Commit; onCompare: () => void }) {
  const [open, setOpen] = useState(false);
  const body = commit.body.trim();
  return (
    <li className="flex items-start gap-2 px-3 py-2.5 hover:bg-hover">
      <div className="min-w-0 flex-1">
        <button
          type="button"
          data-row
          aria-expanded={open}
          onClick={() => setOpen(!open)}
          className="block w-full rounded-sm text-left text-sm font-medium break-words focus-inset"
        >
          <Visible text={commit.message === '' ? '(no message)' : commit.message} />
        </button>
        <p className="mt-0.5 flex min-w-0 flex-wrap items-center gap-x-2 gap-y-1 text-xs text-fg-3">
          <span className="min-w-0 truncate">
            <Visible text={commit.author} />
          </span>
          <Ago at={commit.date} />
          <code className="font-mono">{commit.hash.slice(0, 8)}</code>
          {commit.parents.length > 1 && <Badge>merge</Badge>}
          {refNames(commit.refs).map((ref) => (
            <Badge key={ref} tone="accent" className="max-w-40">
              <span className="truncate">
                <Visible text={ref} />
              </span>
            </Badge>
          ))}
          {commit.pushed ? (
            <span className="flex items-center gap-1">
              <CloudCheck aria-hidden className="size-3.5 text-ok" /> Pushed
            </span>
          ) : (
            <span className="flex items-center gap-1 text-fg-2">
              <MonitorUp aria-hidden className="size-3.5 text-warn" /> Only here
            </span>
          )}
        </p>
        {open && (
          <div className="mt-2 flex flex-col gap-2 text-sm text-fg-2">
            {body !== '' && (
              <p className="break-words whitespace-pre-wrap">
                <Visible text={body.replaceAll('\r', '')} />
              </p>
            )}
            <p className="font-mono text-xs break-all">
              {commit.hash} · <Visible text={commit.email} />
            </p>
          </div>
        )}
      </div>
      <DropdownMenu
        items={[
          { label: 'What changed since this commit', onSelect: onCompare },
          {
            label: 'Copy the hash',
            onSelect: () => {
              void copyText(commit.hash).then((done) => {
                if (done) toast.ok('The hash is copied');
              });
            },
          },
        ]}
      >
        <IconButton size="sm" icon={Ellipsis} label={`More about ${commit.hash.slice(0, 8)}`} />
      </DropdownMenu>
    </li>
  );
}
