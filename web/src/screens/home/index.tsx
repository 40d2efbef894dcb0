import { GitBranch, Plus, Sparkles, SquareTerminal } from 'lucide-react';
import { useRef } from 'react';
import { Link } from 'react-router';
import { useEnvironments } from '@/api/queries';
import type { ListedEnvironment } from '@/api/types';
import { useAttention } from '@/app/attention';
import { useCreateDialog, useTaskDialog } from '@/app/create';
import { grouped, type Placed } from '@/app/inbox';
import { CommandKeys } from '@/app/keys/shown';
import { Page, Section } from '@/app/page';
import { useRowKeys } from '@/app/rows';
import { seenSessions, useUnseen } from '@/app/seen';
import { environmentStatus, sessionStatus } from '@/app/status';
import { whyOf } from '@/app/why';
import { Button } from '@/ui/button';
import { cn } from '@/ui/cn';
import { ErrorState } from '@/ui/error-state';
import { Card, List, ListRow } from '@/ui/list';
import { Skeleton, SkeletonRows } from '@/ui/skeleton';
import { Status, StatusDot } from '@/ui/status';
import { Ago } from '@/ui/time';
import { WayOn } from '../environment/why';
import { repositoryLabel } from '../environments/naming';
import { VisibleLines } from '../review/visible';
import { Beginning } from './beginning';
import { ServerNotice } from './server-notice';
import { WaitingCard } from './waiting';

const SESSIONS_SHOWN = 6;
const FINISHED_SHOWN = 12;
const ENVIRONMENTS_SHOWN = 6;

export function Component() {
  const environments = useEnvironments();
  const create = useCreateDialog();
  const task = useTaskDialog();
  const { data } = environments;
  return (
    <Page
      title="Home"
      actions={
        data !== undefined && data.length > 0 ? (
          <Button icon={Plus} onClick={create.show} className="max-md:hidden">
            New environment
          </Button>
        ) : undefined
      }
    >
      <ServerNotice />
      {environments.isPending && <HomeSkeleton />}
      {environments.isError && data === undefined && (
        <ErrorState
          title="Your environments could not be read"
          error={environments.error}
          busy={environments.isFetching}
          onRetry={() => void environments.refetch()}
        />
      )}
      {data?.length === 0 && <Beginning onCreate={create.show} onTask={task.show} />}
      {data !== undefined && data.length > 0 && <Inbox environments={data} onTask={task.show} />}
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

/** Looks like what it opens: the box that a task is written into. */
function TaskBox({ onOpen }: { onOpen: () => void }) {
  return (
    <button
      type="button"
      onClick={onOpen}
      className="mb-8 flex min-h-12 w-full items-center gap-3 rounded-lg border border-line-strong bg-surface px-4 text-left text-base text-fg-3 shadow-sm hover:border-fg-3 hover:text-fg-2"
    >
      <Sparkles aria-hidden className="size-4 shrink-0 text-accent-fg" />
      <span className="min-w-0 flex-1 truncate">
        <span className="sr-only">New task: </span>What should an agent do?
      </span>
      <span className="max-md:hidden">
        <CommandKeys id="task.new" />
      </span>
    </button>
  );
}

function Inbox({ environments, onTask }: { environments: readonly ListedEnvironment[]; onTask: () => void }) {
  const waiting = useAttention();
  const unseen = useUnseen();
  const list = useRef<HTMLUListElement>(null);
  useRowKeys(list);
  const { running, finished, rest } = grouped(environments, waiting, unseen);
  const alone = running.length + finished.length === 0 && !waiting.some((one) => one.sessionId);
  return (
    <>
      <TaskBox onOpen={onTask} />
      {waiting.length > 0 && (
        <Section title="Needs you">
          <ul ref={list} className="grid gap-3 lg:grid-cols-2">
            {waiting.map((one) => (
              <WaitingCard key={one.id} waiting={one} />
            ))}
          </ul>
        </Section>
      )}
      {running.length > 0 && (
        <Section title="Running">
          <List aria-label="Running">
            {running.map((placed) => (
              <AgentRow key={placed.session.id} {...placed} />
            ))}
          </List>
        </Section>
      )}
      {finished.length > 0 && <Finished finished={finished} />}
      {(rest.length > 0 || alone) && (
        <Section title="Sessions">
          {rest.length === 0 ? (
            <Card className="flex flex-wrap items-center gap-3 px-4 py-5 text-sm text-fg-2 shadow-none">
              <SquareTerminal aria-hidden className="size-5 text-fg-3" />
              <p className="flex-1">No session is running. Open an environment to begin one.</p>
            </Card>
          ) : (
            <List aria-label="Sessions">
              {rest.slice(0, SESSIONS_SHOWN).map((placed) => (
                <SessionRow key={placed.session.id} {...placed} />
              ))}
            </List>
          )}
        </Section>
      )}
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

function Finished({ finished }: { finished: readonly Placed[] }) {
  const more = finished.length - FINISHED_SHOWN;
  return (
    <Section
      title="Finished"
      aside={
        <Button
          size="sm"
          variant="ghost"
          onClick={() => {
            for (const { session } of finished) seenSessions.mark(session);
          }}
        >
          All seen
        </Button>
      }
    >
      <List aria-label="Finished">
        {finished.slice(0, FINISHED_SHOWN).map((placed) => (
          <AgentRow key={placed.session.id} unseen {...placed} />
        ))}
      </List>
      {more > 0 && <p className="mt-2 px-4 text-sm text-fg-3">and {more} more</p>}
    </Section>
  );
}

const WHOLE_CARD =
  'after:absolute after:inset-0 after:rounded-lg focus-visible:outline-none focus-visible:after:outline-2 focus-visible:after:outline-ring';

/** An agent at work, or done with it: since when, and what it said last. */
function AgentRow({ session, environment, unseen = false }: Placed & { unseen?: boolean }) {
  const { kind, word } = sessionStatus(session, unseen);
  const message = session.agentMessage ?? '';
  return (
    <ListRow className="items-start py-3">
      <StatusDot kind={kind} label={word} className="mt-1.5" />
      <div className="min-w-0 flex-1">
        <p className="flex min-w-0 items-baseline gap-3">
          <Link
            to={`/s/${session.id}`}
            className={`min-w-0 truncate text-base font-medium ${WHOLE_CARD} after:rounded-none focus-visible:after:-outline-offset-2`}
          >
            {session.name}
          </Link>
          <span className="min-w-0 truncate text-sm text-fg-3">{environment.name}</span>
        </p>
        {message !== '' && (
          <p className="mt-0.5 line-clamp-2 text-sm wrap-anywhere text-fg-2">
            <VisibleLines text={message} />
          </p>
        )}
      </div>
      <span className="flex shrink-0 flex-col items-end text-sm">
        <span className="text-fg-2 max-sm:hidden">{word}</span>
        {session.agentStateSince && <Ago at={session.agentStateSince} className="text-fg-3" />}
      </span>
    </ListRow>
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
  const why = whyOf(environment);
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
      {why !== undefined && (
        <p className={cn('line-clamp-2 text-sm wrap-anywhere', kind === 'failed' ? 'text-bad' : 'text-fg-2')}>
          {why.reason}
        </p>
      )}
      <div className="mt-auto flex items-center gap-4 text-sm text-fg-3">
        <span className="flex items-center gap-1.5">
          <SquareTerminal aria-hidden className="size-4" />
          {living === 1 ? '1 session' : `${living} sessions`}
        </span>
        <Ago at={environment.updatedAt} className="ml-auto" />
        <WayOn environment={environment} className="relative" />
      </div>
    </li>
  );
}
