import { ArrowDown, ArrowUp, GitBranch, Globe, Plus, Search, SquareTerminal } from 'lucide-react';
import { useState } from 'react';
import { Link } from 'react-router';
import { useBranches, type Branch } from '@/api/git';
import { useSessions } from '@/api/queries';
import type { Environment } from '@/api/types';
import { Badge } from '@/ui/badge';
import { Button } from '@/ui/button';
import { EmptyState } from '@/ui/empty';
import { ErrorState } from '@/ui/error-state';
import { Input } from '@/ui/input';
import { List, ListRow } from '@/ui/list';
import { SkeletonRows } from '@/ui/skeleton';
import { Ago } from '@/ui/time';
import type { SessionWish } from './new-session';
import { branchesFitting } from './start-from';
import { distance } from './words';

const PAGE = 100;

export function BranchesTab({
  environment,
  ready,
  onCreate,
}: {
  environment: Environment;
  ready: boolean;
  onCreate: (wish: SessionWish) => void;
}) {
  const branches = useBranches(environment.id, ready);
  const sessions = useSessions(environment.id);
  const [search, setSearch] = useState('');
  const [shown, setShown] = useState(PAGE);
  if (!ready && branches.data === undefined) {
    return (
      <EmptyState icon={GitBranch} title="The branches cannot be read now">
        They are in the sandbox, which is not running.
      </EmptyState>
    );
  }
  if (branches.isPending) return <SkeletonRows rows={6} label="Reading the branches" />;
  if (branches.data === undefined) {
    return (
      <ErrorState
        title="The branches could not be read"
        error={branches.error}
        busy={branches.isFetching}
        onRetry={() => void branches.refetch()}
      />
    );
  }
  const fitting = branchesFitting(branches.data.branches, search);
  const nameOf = (id: string) => sessions.data?.find((one) => one.id === id)?.name;
  return (
    <>
      <Input
        icon={Search}
        type="search"
        aria-label="Filter the branches"
        placeholder="Filter by name"
        value={search}
        onChange={(event) => {
          setSearch(event.target.value);
          setShown(PAGE);
        }}
      />
      {fitting.length === 0 ? (
        <p role="status" className="py-10 text-center text-sm text-fg-2">
          {search === '' ? 'The repository has no branches yet.' : 'No branch has this in its name.'}
        </p>
      ) : (
        <List aria-label="Branches" className="mt-3">
          {fitting.slice(0, shown).map((branch) => (
            <BranchRow
              key={branch.name}
              branch={branch}
              isDefault={branch.name === branches.data.defaultBranch}
              session={branch.sessionId ? (nameOf(branch.sessionId) ?? 'its session') : undefined}
              onCreate={ready ? () => onCreate({ branch: branch.name }) : undefined}
            />
          ))}
        </List>
      )}
      {fitting.length > shown && (
        <Button variant="ghost" className="mt-2 w-full" onClick={() => setShown(shown + PAGE)}>
          Show {Math.min(PAGE, fitting.length - shown)} more of {fitting.length}
        </Button>
      )}
      {branches.data.truncated && (
        <p className="mt-2 text-center text-sm text-fg-3">There are more: only the newest are listed.</p>
      )}
    </>
  );
}

function BranchRow({
  branch,
  isDefault,
  session,
  onCreate,
}: {
  branch: Branch;
  isDefault: boolean;
  session: string | undefined;
  onCreate: (() => void) | undefined;
}) {
  const Icon = branch.local ? GitBranch : Globe;
  return (
    <ListRow className="py-2.5">
      <Icon
        aria-label={branch.local ? 'Here' : 'On the remote only'}
        className="size-4 shrink-0 text-fg-3 max-sm:hidden"
      />
      <div className="min-w-0 flex-1">
        <p className="flex min-w-0 items-center gap-2">
          <span className="truncate font-mono text-sm">{branch.name}</span>
          {isDefault && <Badge>default</Badge>}
          {branch.local && !branch.remote && <Badge tone="note">not pushed</Badge>}
        </p>
        <p className="mt-0.5 flex min-w-0 items-center gap-2 text-sm text-fg-3">
          <span className="truncate">{branch.subject}</span>
          <Ago at={branch.date} className="shrink-0 text-xs" />
        </p>
      </div>
      <Distance branch={branch} />
      <div className="flex w-36 shrink-0 justify-end max-sm:w-auto">
        {session === undefined ? (
          onCreate &&
          !branch.current && (
            <Button
              size="sm"
              variant="ghost"
              icon={Plus}
              aria-label={`New session on ${branch.name}`}
              onClick={onCreate}
            >
              <span className="max-sm:sr-only">Session</span>
            </Button>
          )
        ) : (
          <Link
            to={`/s/${branch.sessionId ?? ''}`}
            className="flex min-w-0 items-center gap-1.5 rounded-sm text-sm text-accent-fg hover:underline pointer-coarse:min-h-11"
          >
            <SquareTerminal aria-hidden className="size-4 shrink-0" />
            <span className="max-w-28 truncate max-sm:sr-only">{session}</span>
          </Link>
        )}
      </div>
    </ListRow>
  );
}

/** How far a local branch is from its remote one: arrows with numbers, and words for who hears them. */
export function Distance({ branch }: { branch: Pick<Branch, 'ahead' | 'behind' | 'upstream' | 'local'> }) {
  if (!branch.local || !branch.upstream) return null;
  const words = distance(branch);
  return (
    <span title={words} className="flex shrink-0 items-center gap-2 text-xs text-fg-2 tabular-nums">
      <span className="sr-only">{words}</span>
      {branch.ahead > 0 && (
        <span aria-hidden className="flex items-center">
          <ArrowUp className="size-3.5" />
          {branch.ahead}
        </span>
      )}
      {branch.behind > 0 && (
        <span aria-hidden className="flex items-center">
          <ArrowDown className="size-3.5" />
          {branch.behind}
        </span>
      )}
    </span>
  );
}
