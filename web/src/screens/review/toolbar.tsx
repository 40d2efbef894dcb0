import { Columns2, Ellipsis, Maximize2, RefreshCw, Rows2, X } from 'lucide-react';
import type { ReactNode } from 'react';
import { Link } from 'react-router';
import { useBranches } from '@/api/git';
import { useEnvironment } from '@/api/queries';
import { CommandKeys } from '@/app/keys/shown';
import { Button, IconButton } from '@/ui/button';
import { cn } from '@/ui/cn';
import { DropdownMenu } from '@/ui/menu';
import { Select } from '@/ui/select';
import { Segmented } from '@/ui/toggles';
import { BasePicker } from './base-picker';
import { filesWord } from './commit';
import type { ReviewFile } from './diff/files';
import type { DiffView } from './diff/rows';
import { Counts } from './marks';
import { usualBase, type Scope, type ScopeKind } from './scope';

const SCOPES: readonly { value: ScopeKind; label: string; note: string }[] = [
  { value: 'uncommitted', label: 'Uncommitted', note: 'All since the last commit, new files too' },
  { value: 'unstaged', label: 'Not staged', note: 'What git add has not taken, and new files' },
  { value: 'staged', label: 'Staged', note: 'What git add has taken' },
  { value: 'base', label: 'Since base', note: 'All since this branch left another' },
];

/** What is looked at, how it is laid out, and how far somebody is. */
export function Toolbar({
  sessionId,
  environmentId,
  scope,
  compact = false,
  onClose,
  wide,
  files,
  busy,
  look,
  setScope,
  view,
  wrap,
  viewedCount,
  onCloseAll,
  onViewAll,
}: {
  sessionId: string;
  environmentId: string;
  scope: Scope;
  compact?: boolean;
  onClose?: (() => void) | undefined;
  wide: boolean;
  files: readonly ReviewFile[];
  busy: boolean;
  look: () => void;
  setScope: (scope: Scope) => void;
  view: { view: DiffView; setView: (view: DiffView) => void } | undefined;
  wrap: { wrap: boolean; setWrap: (wrap: boolean) => void };
  viewedCount: number;
  onCloseAll: (closed: boolean) => void;
  onViewAll: () => void;
}) {
  const environment = useEnvironment(environmentId);
  const branches = useBranches(environmentId);
  const usual = usualBase(branches.data?.branches, environment.data?.branch, branches.data?.defaultBranch);
  const choose = (kind: ScopeKind) =>
    setScope(kind === 'base' ? { kind, base: usual ?? environment.data?.branch ?? 'main' } : { kind });
  const added = files.reduce((sum, one) => sum + (one.added ?? 0), 0);
  const removed = files.reduce((sum, one) => sum + (one.removed ?? 0), 0);
  return (
    <div
      role="toolbar"
      aria-label="Review"
      className="flex min-h-11 shrink-0 flex-wrap items-center gap-1.5 border-b border-line px-2 py-1.5 sm:gap-2"
    >
      <Select
        aria-label="Which changes"
        value={scope.kind}
        onChange={choose}
        options={SCOPES}
        className={cn('h-7 text-sm shadow-none sm:w-36', scope.kind === 'base' ? 'w-32' : 'w-36')}
      />
      {scope.kind === 'base' && (
        <BasePicker
          environmentId={environmentId}
          base={scope.base}
          onChange={(base) => setScope({ kind: 'base', base })}
        />
      )}
      <span className={cn('flex items-center gap-3 text-sm text-fg-2', !wide && 'max-sm:hidden')}>
        {filesWord(files.length)}
        <Counts added={added} removed={removed} />
      </span>
      <span className="min-w-0 flex-1" />
      {wide && files.length > 0 && (
        <span className="text-sm text-fg-2 tabular-nums">
          {viewedCount} of {files.length} viewed
        </span>
      )}
      {view && (
        <Segmented
          label="How changes are laid out"
          value={view.view}
          onChange={view.setView}
          options={[
            {
              value: 'unified',
              label: <ViewLabel icon={<Rows2 aria-hidden className="size-3.5" />} text="Unified" />,
            },
            {
              value: 'split',
              label: <ViewLabel icon={<Columns2 aria-hidden className="size-3.5" />} text="Split" />,
            },
          ]}
          className="[&>button]:h-6 [&>button]:px-2"
        />
      )}
      <IconButton
        size="sm"
        icon={RefreshCw}
        label="Look again"
        shortcut={<CommandKeys id="review.refresh" />}
        busy={busy}
        onClick={look}
      />
      <DropdownMenu
        items={[
          {
            kind: 'check',
            label: 'Wrap long lines',
            checked: wrap.wrap,
            onChange: wrap.setWrap,
          },
          { kind: 'separator' },
          { label: 'Fold all files', onSelect: () => onCloseAll(true) },
          { label: 'Unfold all files', onSelect: () => onCloseAll(false) },
          { label: 'Mark all as viewed', onSelect: onViewAll },
        ]}
      >
        <IconButton size="sm" icon={Ellipsis} label="More about the review" />
      </DropdownMenu>
      {compact && (
        <Button asChild size="sm" variant="ghost" className="px-1.5">
          <Link to={`/s/${sessionId}/diff`} aria-label="Open the review in full">
            <Maximize2 aria-hidden className="size-4" />
          </Link>
        </Button>
      )}
      {onClose && <IconButton size="sm" icon={X} label="Close the review" onClick={onClose} />}
    </div>
  );
}

function ViewLabel({ icon, text }: { icon: ReactNode; text: string }) {
  return (
    <>
      {icon}
      {text}
    </>
  );
}
