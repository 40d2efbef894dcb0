import { History as HistoryIcon, Undo2 } from 'lucide-react';
import { useRef } from 'react';
import { Link } from 'react-router';
import type { Deployment } from '@/api/deployments';
import { useRowKeys } from '@/app/rows';
import { IconButton } from '@/ui/button';
import { cn } from '@/ui/cn';
import { EmptyState } from '@/ui/empty';
import { List, ListRow } from '@/ui/list';
import { Status } from '@/ui/status';
import { Ago } from '@/ui/time';
import { short } from '../environment/words';
import { Visible } from '../review/visible';
import { commitOf, deploymentStatus } from './words';

/** What was deployed, newest first. */
export function History({
  rows,
  narrow = false,
  onRollback,
}: {
  rows: readonly Deployment[];
  narrow?: boolean;
  /** Goes back to the commit of a row; not offered for what was deployed last. */
  onRollback: (row: Deployment, commit: string) => void;
}) {
  const list = useRef<HTMLUListElement>(null);
  useRowKeys(list);
  if (rows.length === 0) {
    return (
      <EmptyState icon={HistoryIcon} title="Nothing was deployed yet" className="py-8">
        Each deployment from here is listed with what became of it.
      </EmptyState>
    );
  }
  return (
    <List ref={list} aria-label="Deployments">
      {rows.map((row) => (
        <Row key={row.id} row={row} narrow={narrow} back={backTo(row, rows)} onRollback={onRollback} />
      ))}
    </List>
  );
}

/** The commit that a row can be gone back to. */
function backTo(row: Deployment, rows: readonly Deployment[]): string | undefined {
  if (row.status !== 'succeeded' || row.pull_request_id !== null) return undefined;
  const newest = rows.find(
    (one) => one.app_id === row.app_id && one.status === 'succeeded' && one.pull_request_id === null,
  );
  const { commit } = commitOf(row);
  if (commit === null || newest === undefined || commitOf(newest).commit === commit) return undefined;
  return commit;
}

function Row({
  row,
  narrow,
  back,
  onRollback,
}: {
  row: Deployment;
  narrow: boolean;
  back: string | undefined;
  onRollback: (row: Deployment, commit: string) => void;
}) {
  const { kind, word } = deploymentStatus(row);
  const { commit } = commitOf(row);
  return (
    <ListRow className={cn('items-start', narrow && 'px-3 py-2')}>
      <div className="min-w-0 flex-1">
        <p className="flex min-w-0 flex-wrap items-baseline gap-x-2">
          <Link
            to={`/deployments/${row.id}`}
            data-row
            className="min-w-0 truncate text-sm font-medium after:absolute after:inset-0 focus-visible:outline-none focus-visible:after:outline-2 focus-visible:after:-outline-offset-2 focus-visible:after:outline-ring"
          >
            {row.kind === 'rollback' ? 'Rolled back ' : ''}
            <Visible text={row.app_name} />
          </Link>
          {commit !== null && <span className="font-mono text-xs text-fg-2">{short(commit)}</span>}
          {row.pull_request_id !== null && (
            <span className="text-xs text-fg-2">preview of pull request {row.pull_request_id}</span>
          )}
        </p>
        <p className="mt-0.5 flex min-w-0 flex-wrap gap-x-2 text-xs text-fg-3">
          {narrow && <Status kind={kind} word={word} className="text-xs" />}
          {row.branch !== null && row.branch !== '' && (
            <span className="max-w-full truncate font-mono">
              <Visible text={row.branch} />
            </span>
          )}
          <Ago at={row.created_at} />
        </p>
        {row.reason !== null && row.reason !== '' && (row.status === 'failed' || row.live) && (
          <p className="mt-1 line-clamp-2 text-sm wrap-anywhere text-fg-2">
            <Visible text={row.reason} />
          </p>
        )}
      </div>
      {!narrow && <Status kind={kind} word={word} className="mt-0.5 shrink-0 sm:w-32" />}
      <span className={cn('relative -my-1 flex shrink-0 justify-end', !narrow && 'size-8 max-sm:size-auto')}>
        {back !== undefined && (
          <IconButton
            icon={Undo2}
            label={`Roll ${row.app_name} back to ${short(back)}`}
            onClick={() => onRollback(row, back)}
          />
        )}
      </span>
    </ListRow>
  );
}
