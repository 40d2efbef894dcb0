import { FileDiff, GitMerge, RefreshCw, RotateCw } from 'lucide-react';
import { useGitStatus, type GitStatus, type StatusFile } from '@/api/git';
import { Button, IconButton } from '@/ui/button';
import { cn } from '@/ui/cn';
import { ErrorNote } from '@/ui/error-state';
import { SkeletonRows } from '@/ui/skeleton';
import { VirtualList } from '@/ui/virtual-list';
import { counted } from '../environment/words';
import { Counts, StatusLetter } from '../review/marks';
import { FilePath } from '../review/visible';
import { fileStatus, inOrder, operationWord, totals } from './git-words';

const ROW_HEIGHT = 32;

/** The files that changed in a session's worktree; one opens its diff. */
export function Changes({
  sessionId,
  file,
  onOpen,
}: {
  sessionId: string;
  /** The file that is being looked at. */
  file: string | undefined;
  /** Opens the review, at a file where one is named. */
  onOpen: (file: string | undefined) => void;
}) {
  const status = useGitStatus(sessionId);
  const retry = () => void status.refetch();
  if (status.data === undefined) {
    if (status.isError) {
      return (
        <div className="flex flex-col items-start gap-2 p-3">
          <ErrorNote error={status.error} className="w-full" />
          <Button size="sm" icon={RotateCw} busy={status.isFetching} onClick={retry}>
            Retry
          </Button>
        </div>
      );
    }
    return <SkeletonRows rows={4} label="Looking at the worktree" />;
  }
  return (
    <ChangesShown
      status={status.data}
      file={file}
      busy={status.isFetching}
      failed={status.error}
      onRefresh={retry}
      onOpen={onOpen}
    />
  );
}

function ChangesShown({
  status,
  file,
  busy,
  failed,
  onRefresh,
  onOpen,
}: {
  status: GitStatus;
  file: string | undefined;
  busy: boolean;
  failed: Error | null;
  onRefresh: () => void;
  onOpen: (file: string | undefined) => void;
}) {
  const { files, operation, truncated } = status;
  const sum = totals(files);
  return (
    <div className="flex min-h-0 flex-1 flex-col">
      <div className="flex h-10 shrink-0 items-center gap-2 pr-1.5 pl-3 text-sm text-fg-2 pointer-coarse:h-12">
        <span className="min-w-0 flex-1 truncate">
          {files.length === 0 ? 'No changes' : counted(files.length, 'changed file')}
          {truncated && ' and more'}
        </span>
        <Counts added={sum.added} removed={sum.removed} />
        <IconButton size="sm" icon={RefreshCw} label="Look again" busy={busy} onClick={onRefresh} />
        <Button
          size="sm"
          variant="ghost"
          icon={FileDiff}
          disabled={files.length === 0}
          onClick={() => onOpen(undefined)}
        >
          Review
        </Button>
      </div>
      {failed !== null && <ErrorNote error={failed} className="mx-3 mb-2" />}
      {operation !== null && operation !== '' && (
        <p className="mx-3 mb-2 flex items-start gap-2 rounded-md bg-warn-soft px-3 py-2 text-sm">
          <GitMerge aria-hidden className="mt-0.5 size-4 shrink-0 text-warn" />
          <span>{operationWord(operation)} is under way. Finish it in the terminal.</span>
        </p>
      )}
      {files.length === 0 ? (
        <p className="px-6 py-8 text-center text-sm text-fg-3">
          Everything in this worktree is committed. What changes will be listed here.
        </p>
      ) : (
        <VirtualList
          items={inOrder(files)}
          rowKey={(one) => one.filenameBase64 ?? one.filename}
          estimate={ROW_HEIGHT}
          label="Changed files"
          className="min-h-0 flex-1 px-1.5 pb-2"
          row={(one) => (
            <FileRow file={one} shown={one.filename === file} onOpen={() => onOpen(one.filename)} />
          )}
        />
      )}
    </div>
  );
}

function FileRow({ file, shown, onOpen }: { file: StatusFile; shown: boolean; onOpen: () => void }) {
  return (
    <button
      type="button"
      aria-current={shown || undefined}
      onClick={onOpen}
      className={cn(
        'flex h-8 w-full min-w-0 items-center gap-2 rounded-md px-1.5 text-left focus-inset pointer-coarse:h-11',
        shown ? 'bg-active' : 'hover:bg-hover',
      )}
    >
      <StatusLetter status={fileStatus(file)} />
      <FilePath name={file.filename} original={file.originalFilename ?? undefined} className="flex-1" />
      {file.staged && (
        <span title="Staged" className="shrink-0 rounded-sm bg-active px-1 text-[11px] text-fg-2">
          staged
        </span>
      )}
      <Counts added={file.added ?? undefined} removed={file.deleted ?? undefined} />
    </button>
  );
}
