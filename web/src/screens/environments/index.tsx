import { Container, Ellipsis, GitBranch, Plus, RotateCw, Search, SquareTerminal, Trash2 } from 'lucide-react';
import { useRef, useState, type RefObject } from 'react';
import { Link, useNavigate } from 'react-router';
import { useEnvironments, useRetryEnvironment } from '@/api/queries';
import type { ListedEnvironment } from '@/api/types';
import { useCommands } from '@/app/commands';
import { useCreateDialog } from '@/app/create';
import { CommandKeys } from '@/app/keys/shown';
import { Page } from '@/app/page';
import { useRowKeys } from '@/app/rows';
import { environmentStatus } from '@/app/status';
import { whyOf } from '@/app/why';
import { Button, IconButton } from '@/ui/button';
import { cn } from '@/ui/cn';
import { EmptyState } from '@/ui/empty';
import { ErrorState } from '@/ui/error-state';
import { Input } from '@/ui/input';
import { List, ListRow } from '@/ui/list';
import { DropdownMenu, type MenuItem } from '@/ui/menu';
import { SkeletonRows } from '@/ui/skeleton';
import { Status } from '@/ui/status';
import { Ago } from '@/ui/time';
import { toast } from '@/ui/toast';
import { Segmented } from '@/ui/toggles';
import { WayOn } from '../environment/why';
import { DeleteEnvironment } from './delete';
import { repositoryLabel } from './naming';

type Filter = 'all' | 'running' | 'attention';

/** What a search and a filter leave of the list. Pure. */
export function fitting(
  environments: readonly ListedEnvironment[],
  search: string,
  filter: Filter,
): ListedEnvironment[] {
  const words = search.toLowerCase().split(/\s+/u).filter(Boolean);
  return environments.filter((one) => {
    const { kind } = environmentStatus(one);
    if (filter === 'running' && kind !== 'ready' && kind !== 'working') return false;
    if (filter === 'attention' && kind !== 'failed') return false;
    const text = `${one.name} ${one.repositoryUrl ?? ''} ${one.branch}`.toLowerCase();
    return words.every((word) => text.includes(word));
  });
}

export function Component() {
  const create = useCreateDialog();
  const environments = useEnvironments();
  return (
    <Page
      title="Environments"
      actions={
        <Button variant="primary" icon={Plus} onClick={create.show} className="max-md:hidden">
          New environment
        </Button>
      }
    >
      {environments.isPending && <SkeletonRows rows={6} label="Loading your environments" />}
      {environments.isError && environments.data === undefined && (
        <ErrorState
          title="Your environments could not be read"
          error={environments.error}
          busy={environments.isFetching}
          onRetry={() => void environments.refetch()}
        />
      )}
      {environments.data?.length === 0 && <NoEnvironments onCreate={create.show} />}
      {environments.data !== undefined && environments.data.length > 0 && (
        <EnvironmentsList environments={environments.data} />
      )}
    </Page>
  );
}

export function NoEnvironments({ onCreate }: { onCreate: () => void }) {
  return (
    <EmptyState
      icon={Container}
      title="No environments yet"
      action={
        <Button variant="primary" icon={Plus} onClick={onCreate}>
          New environment <CommandKeys id="environment.new" />
        </Button>
      }
    >
      An environment is a sandbox of your own with a repository in it. Each session in it has its own worktree
      and a terminal that lives on when you leave.
    </EmptyState>
  );
}

function EnvironmentsList({ environments }: { environments: readonly ListedEnvironment[] }) {
  const [search, setSearch] = useState('');
  const [filter, setFilter] = useState<Filter>('all');
  const [deleting, setDeleting] = useState<ListedEnvironment>();
  const box = useRef<HTMLInputElement>(null);
  const list = useRef<HTMLUListElement>(null);
  const shown = fitting(environments, search, filter);
  useRowKeys(list);
  useCommands([
    {
      id: 'list.search',
      title: 'Filter the list',
      group: 'Lists',
      keys: '/',
      keysOnly: true,
      run: () => box.current?.focus(),
    },
  ]);
  return (
    <>
      <div className="mb-4 flex flex-col gap-2 sm:flex-row">
        <div className="flex-1">
          <Input
            ref={box}
            icon={Search}
            type="search"
            aria-label="Filter your environments"
            placeholder="Filter by name, repository or branch"
            value={search}
            onChange={(event) => setSearch(event.target.value)}
          />
        </div>
        <Segmented
          label="Which environments"
          value={filter}
          onChange={setFilter}
          options={[
            { value: 'all', label: 'All' },
            { value: 'running', label: 'Running' },
            { value: 'attention', label: 'Needs you' },
          ]}
        />
      </div>
      {shown.length === 0 ? (
        <p role="status" className="py-10 text-center text-sm text-fg-2">
          None of your {environments.length} environments fits.{' '}
          <button
            type="button"
            className="font-medium text-accent-fg underline"
            onClick={() => {
              setSearch('');
              setFilter('all');
            }}
          >
            Show all
          </button>
        </p>
      ) : (
        <Rows shown={shown} list={list} onDelete={setDeleting} />
      )}
      {deleting && <DeleteEnvironment environment={deleting} onClose={() => setDeleting(undefined)} />}
    </>
  );
}

function Rows({
  shown,
  list,
  onDelete,
}: {
  shown: readonly ListedEnvironment[];
  list: RefObject<HTMLUListElement | null>;
  onDelete: (environment: ListedEnvironment) => void;
}) {
  return (
    <List ref={list} aria-label="Environments">
      {shown.map((one) => (
        <EnvironmentRow key={one.id} environment={one} onDelete={() => onDelete(one)} />
      ))}
    </List>
  );
}

function EnvironmentRow({ environment, onDelete }: { environment: ListedEnvironment; onDelete: () => void }) {
  const { kind, word } = environmentStatus(environment);
  const living = environment.sessions.filter((one) => one.status !== 'dead').length;
  const why = whyOf(environment);
  return (
    <ListRow className="py-3">
      <div className="min-w-0 flex-1">
        <div className="flex min-w-0 items-center gap-2">
          <Link
            to={`/e/${environment.id}`}
            data-row
            className="truncate text-base font-medium after:absolute after:inset-0 focus-visible:outline-none focus-visible:after:outline-2 focus-visible:after:-outline-offset-2 focus-visible:after:outline-ring"
          >
            {environment.name}
          </Link>
          <Status kind={kind} word={word} className="ml-auto shrink-0 sm:hidden" />
        </div>
        <p className="mt-0.5 flex min-w-0 items-center gap-3 text-sm text-fg-3">
          {environment.repositoryUrl === undefined || environment.repositoryUrl === null ? (
            <span>No repository</span>
          ) : (
            <>
              <span className="truncate">{repositoryLabel(environment.repositoryUrl)}</span>
              <span className="flex min-w-0 items-center gap-1 max-sm:hidden">
                <GitBranch aria-hidden className="size-3.5 shrink-0" />
                <span className="truncate font-mono text-xs">{environment.branch}</span>
              </span>
            </>
          )}
        </p>
        {why !== undefined && (
          <p
            className={cn(
              'mt-1 line-clamp-2 text-sm wrap-anywhere',
              kind === 'failed' ? 'text-bad' : 'text-fg-2',
            )}
          >
            {why.reason}
          </p>
        )}
      </div>
      <WayOn environment={environment} className="relative max-sm:hidden" />
      <span
        title={`${living} ${living === 1 ? 'session' : 'sessions'}`}
        className="flex w-12 shrink-0 items-center gap-1.5 text-sm text-fg-2 tabular-nums max-sm:hidden"
      >
        <SquareTerminal aria-hidden className="size-4 text-fg-3" />
        {living}
        <span className="sr-only">{living === 1 ? 'session' : 'sessions'}</span>
      </span>
      <Ago
        at={environment.updatedAt}
        className="mr-3 w-24 shrink-0 text-right text-sm text-fg-3 max-md:hidden"
      />
      <Status kind={kind} word={word} className="w-28 shrink-0 max-sm:hidden" />
      <RowMenu environment={environment} onDelete={onDelete} />
    </ListRow>
  );
}

function RowMenu({ environment, onDelete }: { environment: ListedEnvironment; onDelete: () => void }) {
  const navigate = useNavigate();
  const retry = useRetryEnvironment();
  const { kind } = environmentStatus(environment);
  const start: MenuItem = {
    label: kind === 'failed' ? 'Try again' : 'Start',
    icon: RotateCw,
    onSelect: () =>
      retry.mutate(environment.id, {
        onError: (error) => toast.failed(`${environment.name} was not started`, error),
      }),
  };
  const items: MenuItem[] = [
    {
      label: 'New session',
      icon: Plus,
      disabled: kind !== 'ready',
      onSelect: () => void navigate(`/e/${environment.id}?new=session`),
    },
    ...(kind === 'failed' || kind === 'idle' ? [start] : []),
    { kind: 'separator' },
    { label: 'Delete…', icon: Trash2, danger: true, onSelect: onDelete },
  ];
  return (
    <DropdownMenu items={items}>
      <IconButton
        icon={Ellipsis}
        label={`More about ${environment.name}`}
        busy={retry.isPending}
        className="relative -mr-1.5"
      />
    </DropdownMenu>
  );
}
