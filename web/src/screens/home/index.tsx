import { Container, GitBranch, GitPullRequestArrow, Plus, RotateCw, SquareTerminal } from 'lucide-react';
import type { ReactNode } from 'react';
import { Link } from 'react-router';
import { useEnvironments, useRetryEnvironment } from '@/api/queries';
import type { ListedEnvironment, SessionLine } from '@/api/types';
import { useCreateDialog } from '@/app/create';
import { CommandKeys } from '@/app/keys/shown';
import { Page, Section } from '@/app/page';
import { attention, environmentStatus, sessionStatus, type Attention } from '@/app/status';
import { useUser } from '@/auth/session';
import { Button } from '@/ui/button';
import { ErrorState } from '@/ui/error-state';
import { Card, List, ListRow } from '@/ui/list';
import { Skeleton, SkeletonRows } from '@/ui/skeleton';
import { Status, StatusDot } from '@/ui/status';
import { Ago } from '@/ui/time';
import { toast } from '@/ui/toast';
import { repositoryLabel } from '../environments/naming';

const SESSIONS_SHOWN = 6;
const ENVIRONMENTS_SHOWN = 6;

type Placed = { session: SessionLine; environment: ListedEnvironment };

/** The living sessions, those in use first, then the ones used last. Pure. */
export function recentSessions(environments: readonly ListedEnvironment[]): Placed[] {
  const used = ({ session }: Placed) => session.lastActivity ?? session.createdAt;
  const active = ({ session }: Placed) => (session.status === 'active' ? 1 : 0);
  return environments
    .flatMap((environment) => environment.sessions.map((session) => ({ session, environment })))
    .filter(({ session }) => session.status !== 'dead')
    .sort((a, b) => active(b) - active(a) || used(b).localeCompare(used(a)));
}

export function Component() {
  const environments = useEnvironments();
  const create = useCreateDialog();
  const { data } = environments;
  return (
    <Page
      title="Home"
      actions={
        data !== undefined && data.length > 0 ? (
          <Button variant="primary" icon={Plus} onClick={create.show} className="max-md:hidden">
            New environment
          </Button>
        ) : undefined
      }
    >
      {environments.isPending && <HomeSkeleton />}
      {environments.isError && data === undefined && (
        <ErrorState
          title="Your environments could not be read"
          error={environments.error}
          busy={environments.isFetching}
          onRetry={() => void environments.refetch()}
        />
      )}
      {data?.length === 0 && <Beginning onCreate={create.show} />}
      {data !== undefined && data.length > 0 && <Overview environments={data} />}
    </Page>
  );
}

function HomeSkeleton() {
  return (
    <div className="flex flex-col gap-6">
      <Skeleton className="h-5 w-32" />
      <SkeletonRows rows={5} label="Loading your environments" />
    </div>
  );
}

function Overview({ environments }: { environments: readonly ListedEnvironment[] }) {
  const waiting = attention(environments);
  const sessions = recentSessions(environments);
  return (
    <>
      {waiting.length > 0 && (
        <Section title="Needs you">
          <ul className="grid gap-3 lg:grid-cols-2">
            {waiting.map((one) => (
              <WaitingCard key={one.id} waiting={one} />
            ))}
          </ul>
        </Section>
      )}
      <Section title="Sessions">
        {sessions.length === 0 ? (
          <Card className="flex flex-wrap items-center gap-3 px-4 py-5 text-sm text-fg-2 shadow-none">
            <SquareTerminal aria-hidden className="size-5 text-fg-3" />
            <p className="flex-1">No session is running. Open an environment to begin one.</p>
          </Card>
        ) : (
          <List aria-label="Sessions">
            {sessions.slice(0, SESSIONS_SHOWN).map((placed) => (
              <SessionRow key={placed.session.id} {...placed} />
            ))}
          </List>
        )}
      </Section>
      <Section
        title="Environments"
        aside={
          <Link to="/envs" className="rounded-sm text-sm font-medium text-accent-fg hover:underline">
            All {environments.length}
          </Link>
        }
      >
        <ul className="grid gap-3 sm:grid-cols-2 xl:grid-cols-3">
          {environments.slice(0, ENVIRONMENTS_SHOWN).map((one) => (
            <EnvironmentCard key={one.id} environment={one} />
          ))}
        </ul>
      </Section>
    </>
  );
}

const WHOLE_CARD =
  'after:absolute after:inset-0 after:rounded-lg focus-visible:outline-none focus-visible:after:outline-2 focus-visible:after:outline-ring';

function WaitingCard({ waiting }: { waiting: Attention }) {
  const retry = useRetryEnvironment();
  return (
    <li className="flex items-start gap-3 rounded-lg border border-line bg-surface p-4 shadow-sm">
      <span className="flex size-8 shrink-0 items-center justify-center rounded-md bg-bad-soft">
        <StatusDot kind={waiting.kind} />
      </span>
      <div className="min-w-0 flex-1">
        <p className="truncate text-base font-semibold">
          {waiting.title} <span className="ml-1 text-sm font-medium text-bad">{waiting.why}</span>
        </p>
        {waiting.details !== undefined && (
          <p className="mt-0.5 line-clamp-3 text-sm break-words text-fg-2">{waiting.details}</p>
        )}
        <div className="mt-3 flex gap-2">
          <Button
            icon={RotateCw}
            busy={retry.isPending}
            onClick={() =>
              retry.mutate(waiting.environmentId, {
                onError: (error) => toast.failed(`${waiting.title} was not started`, error),
              })
            }
          >
            Retry
          </Button>
          <Button asChild variant="ghost">
            <Link to={waiting.to}>Open</Link>
          </Button>
        </div>
      </div>
    </li>
  );
}

function SessionRow({ session, environment }: Placed) {
  const { kind, word } = sessionStatus(session);
  return (
    <ListRow>
      <StatusDot kind={kind} label={word} />
      <div className="flex min-w-0 flex-1 flex-col sm:flex-row sm:items-center sm:gap-3">
        <Link
          to={`/s/${session.id}`}
          className={`truncate text-base font-medium ${WHOLE_CARD} after:rounded-none focus-visible:after:-outline-offset-2`}
        >
          {session.name}
        </Link>
        <span className="flex min-w-0 items-center gap-3 text-sm text-fg-3">
          <span className="truncate">{environment.name}</span>
          {session.gitBranch !== null && (
            <span className="flex min-w-0 items-center gap-1">
              <GitBranch aria-hidden className="size-3.5 shrink-0" />
              <span className="truncate font-mono text-xs">{session.gitBranch}</span>
            </span>
          )}
        </span>
      </div>
      <span className="shrink-0 text-sm text-fg-2 max-sm:hidden">{word}</span>
      <Ago
        at={session.lastActivity ?? session.createdAt}
        className="w-20 shrink-0 text-right text-sm text-fg-3"
      />
    </ListRow>
  );
}

function EnvironmentCard({ environment }: { environment: ListedEnvironment }) {
  const { kind, word } = environmentStatus(environment);
  const living = environment.sessions.filter((one) => one.status !== 'dead').length;
  return (
    <li className="relative flex flex-col gap-3 rounded-lg border border-line bg-surface p-4 shadow-sm transition-colors hover:border-line-strong">
      <div className="flex items-start justify-between gap-3">
        <div className="min-w-0">
          <Link
            to={`/e/${environment.id}`}
            className={`block truncate text-base font-semibold ${WHOLE_CARD}`}
          >
            {environment.name}
          </Link>
          <p className="truncate text-sm text-fg-3">
            {environment.repositoryUrl === undefined || environment.repositoryUrl === null
              ? 'No repository'
              : repositoryLabel(environment.repositoryUrl)}
          </p>
        </div>
        <Status kind={kind} word={word} className="shrink-0" />
      </div>
      <div className="flex items-center gap-4 text-sm text-fg-3">
        <span className="flex items-center gap-1.5">
          <SquareTerminal aria-hidden className="size-4" />
          {living === 1 ? '1 session' : `${living} sessions`}
        </span>
        <Ago at={environment.updatedAt} className="ml-auto" />
      </div>
    </li>
  );
}

function Beginning({ onCreate }: { onCreate: () => void }) {
  const user = useUser();
  const first = user.name.split(/\s+/u)[0] ?? '';
  return (
    <div className="mx-auto max-w-3xl py-6 md:py-12">
      <h2 className="text-2xl font-semibold tracking-tight">Welcome{first === '' ? '' : `, ${first}`}</h2>
      <p className="mt-1 max-w-xl text-base text-fg-2">
        Craftastic gives each piece of work a place of its own. It takes three steps.
      </p>
      <ol className="mt-6 grid gap-3 md:grid-cols-3">
        <BeginningStep icon={<Container aria-hidden className="size-4" />} title="1. Make an environment">
          A sandbox with your repository in it, apart from everything else.
        </BeginningStep>
        <BeginningStep icon={<SquareTerminal aria-hidden className="size-4" />} title="2. Begin a session">
          A branch with its own worktree, and a terminal that lives on when you leave.
        </BeginningStep>
        <BeginningStep
          icon={<GitPullRequestArrow aria-hidden className="size-4" />}
          title="3. Review and push"
        >
          See what changed, commit it, push it. Your git credentials never enter the sandbox.
        </BeginningStep>
      </ol>
      <div className="mt-6 flex flex-wrap gap-2">
        <Button variant="primary" size="lg" icon={Plus} onClick={onCreate}>
          New environment
        </Button>
        <Button asChild variant="ghost" size="lg">
          <Link to="/welcome">Look whether all is ready</Link>
        </Button>
      </div>
      <p className="mt-4 flex flex-wrap items-center gap-1.5 text-sm text-fg-3 max-md:hidden">
        Press <CommandKeys id="palette.open" /> for anything, <CommandKeys id="keys.show" /> for all keys.
      </p>
    </div>
  );
}

function BeginningStep({ icon, title, children }: { icon: ReactNode; title: string; children: ReactNode }) {
  return (
    <li className="rounded-lg border border-line bg-surface p-4 shadow-sm">
      <span className="mb-3 flex size-8 items-center justify-center rounded-md bg-accent-soft text-accent-fg">
        {icon}
      </span>
      <h3 className="text-base font-semibold">{title}</h3>
      <p className="mt-1 text-sm text-fg-2">{children}</p>
    </li>
  );
}
