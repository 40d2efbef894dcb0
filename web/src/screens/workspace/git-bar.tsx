import {
  ArrowDown,
  ArrowUp,
  Check,
  Copy,
  Download,
  GitBranch,
  RefreshCw,
  TriangleAlert,
  Upload,
} from 'lucide-react';
import type { GitStatus } from '@/api/git';
import { Button } from '@/ui/button';
import { cn } from '@/ui/cn';
import { copyText } from '@/ui/code';
import { DropdownMenu, type MenuItem } from '@/ui/menu';
import { toast } from '@/ui/toast';
import { ForceQuestion, standing, type Sync } from '../review/sync';
import { shortRef } from '../review/scope';
import { Visible } from '../review/visible';
import { nextStep } from './git-words';

/** A worktree's branch, how far it is from the remote, and the one thing to do next. */
export function GitBar({
  status,
  sync,
  onReview,
  className,
}: {
  status: GitStatus;
  sync: Sync;
  /** Opens the review, where commits are made. */
  onReview: () => void;
  className?: string | undefined;
}) {
  return (
    <div role="group" aria-label="Git" className={cn('flex min-w-0 items-center gap-2', className)}>
      <BranchChip status={status} sync={sync} />
      <NextButton status={status} sync={sync} onReview={onReview} />
      <ForceQuestion status={status} sync={sync} />
    </div>
  );
}

function BranchChip({ status, sync }: { status: GitStatus; sync: Sync }) {
  const { ahead, behind, detached, head, branch, upstream } = status;
  const shown = detached ? shortRef(head ?? 'HEAD') : branch;
  const nothing = detached || head === null || sync.busy;
  const items: MenuItem[] = [
    { kind: 'heading', label: standing(status) },
    {
      label: 'Copy the name',
      icon: Copy,
      onSelect: () => void copyText(shown).then((done) => done && toast.note('Copied')),
    },
    { label: 'Look at the remote', icon: RefreshCw, disabled: sync.busy, onSelect: sync.fetch },
    { kind: 'separator' },
    { label: 'Pull', icon: Download, disabled: nothing || !upstream, onSelect: () => sync.pull() },
    {
      label: 'Pull and rebase',
      icon: Download,
      disabled: nothing || !upstream,
      onSelect: () => sync.pull('rebase'),
    },
    { label: 'Push', icon: Upload, disabled: nothing, onSelect: () => sync.push() },
    { kind: 'separator' },
    {
      label: 'Push and overwrite…',
      icon: TriangleAlert,
      danger: true,
      disabled: nothing,
      onSelect: () => sync.askForce(true),
    },
  ];
  return (
    <DropdownMenu items={items}>
      <button
        type="button"
        title={`${shown}: ${standing(status)}`}
        className="flex h-8 min-w-0 items-center gap-1.5 rounded-md border border-line bg-surface px-2 text-xs shadow-sm hover:bg-raised pointer-coarse:h-11"
      >
        <GitBranch aria-hidden className="size-3.5 shrink-0 text-fg-3" />
        <span className="sr-only">Branch </span>
        <span className="max-w-56 min-w-0 truncate font-mono">
          <Visible text={shown} />
        </span>
        <span className="sr-only">, {standing(status)}</span>
        {ahead > 0 && (
          <span aria-hidden className="flex shrink-0 items-center text-fg-2 tabular-nums">
            <ArrowUp className="size-3.5" />
            {ahead}
          </span>
        )}
        {behind > 0 && (
          <span aria-hidden className="flex shrink-0 items-center text-fg-2 tabular-nums">
            <ArrowDown className="size-3.5" />
            {behind}
          </span>
        )}
      </button>
    </DropdownMenu>
  );
}

function NextButton({ status, sync, onReview }: { status: GitStatus; sync: Sync; onReview: () => void }) {
  const next = nextStep(status);
  switch (next.step) {
    case 'resolve':
      return (
        <Button icon={TriangleAlert} onClick={onReview}>
          Conflicts
        </Button>
      );
    case 'commit':
      return (
        <Button variant="primary" onClick={onReview}>
          Commit
          <Number count={next.files} what="changed files" />
        </Button>
      );
    case 'push':
      return (
        <Button
          variant="primary"
          icon={Upload}
          busy={sync.pushed.isPending}
          disabled={sync.busy}
          onClick={() => sync.push()}
        >
          {next.first ? 'Publish' : 'Push'}
          {next.commits > 0 && <Number count={next.commits} what="commits" />}
        </Button>
      );
    case 'pull':
      return (
        <Button
          variant="primary"
          icon={Download}
          busy={sync.pulled.isPending}
          disabled={sync.busy}
          onClick={() => sync.pull()}
        >
          Pull
          <Number count={next.commits} what="commits" />
        </Button>
      );
    case 'none':
      return (
        <span className="flex h-8 shrink-0 items-center gap-1.5 px-1 text-sm text-fg-2">
          {next.why === 'Up to date' && <Check aria-hidden className="size-4 text-ok" />}
          {next.why}
        </span>
      );
  }
}

function Number({ count, what }: { count: number; what: string }) {
  return (
    <span className="border-l border-current/40 pl-1.5 tabular-nums">
      {count}
      <span className="sr-only"> {what}</span>
    </span>
  );
}
