import { Ellipsis, GitBranch, Plus, SquareTerminal } from 'lucide-react';
import { useRef, useState } from 'react';
import { Link } from 'react-router';
import { useDisk } from '@/api/disk';
import { useSessions } from '@/api/queries';
import type { Environment, Session } from '@/api/types';
import { formatBytes } from '@/app/bytes';
import { CommandKeys } from '@/app/keys/shown';
import { useRowKeys } from '@/app/rows';
import { useUnseen } from '@/app/seen';
import { environmentStatus, sessionStatus } from '@/app/status';
import { sessionWhy } from '@/app/why';
import { Button, IconButton } from '@/ui/button';
import { Collapsible } from '@/ui/collapsible';
import { EmptyState } from '@/ui/empty';
import { ErrorState } from '@/ui/error-state';
import { List, ListRow } from '@/ui/list';
import { DropdownMenu } from '@/ui/menu';
import { SkeletonRows } from '@/ui/skeleton';
import { Status } from '@/ui/status';
import { Ago } from '@/ui/time';
import { VisibleLines } from '../review/visible';
import { SessionDialog, useSessionMenu, type SessionQuestion } from './session-dialogs';
import { SetupMark } from './setup';
import { byActivity, counted, startedFrom } from './words';

/** Setups are asked for inside the sandbox, one by one: only those of the newest sessions are. */
const SETUPS_SHOWN = 12;

export function SessionsTab({
  environment,
  ready,
  onCreate,
}: {
  environment: Environment;
  ready: boolean;
  onCreate: () => void;
}) {
  const sessions = useSessions(environment.id);
  const disk = useDisk(environment.id);
  const [question, setQuestion] = useState<SessionQuestion>();
  const list = useRef<HTMLUListElement>(null);
  useRowKeys(list);
  if (sessions.isPending) return <SkeletonRows rows={4} label="Loading the sessions" />;
  if (sessions.data === undefined) {
    return (
      <ErrorState
        title="The sessions could not be read"
        error={sessions.error}
        busy={sessions.isFetching}
        onRetry={() => void sessions.refetch()}
      />
    );
  }
  const { living, ended } = byActivity(sessions.data);
  const row = (session: Session, index: number) => (
    <SessionRow
      key={session.id}
      session={session}
      withSetup={environmentStatus(environment).kind === 'ready' && index < SETUPS_SHOWN}
      bytes={disk.data?.sessions.find(({ sessionId }) => sessionId === session.id)?.bytes}
      onAsk={setQuestion}
    />
  );
  return (
    <>
      {living.length === 0 ? (
        <NoSessions environment={environment} ready={ready} before={ended.length > 0} onCreate={onCreate} />
      ) : (
        <List ref={list} aria-label="Sessions">
          {living.map(row)}
        </List>
      )}
      {ended.length > 0 && (
        <Collapsible
          title={counted(ended.length, 'ended session')}
          defaultOpen={living.length === 0}
          className="mt-4"
        >
          <List aria-label="Ended sessions">{ended.map(row)}</List>
        </Collapsible>
      )}
      {question && <SessionDialog question={question} onClose={() => setQuestion(undefined)} />}
    </>
  );
}

function NoSessions({
  environment,
  ready,
  before,
  onCreate,
}: {
  environment: Environment;
  ready: boolean;
  /** Whether there were some that have ended. */
  before: boolean;
  onCreate: () => void;
}) {
  return (
    <EmptyState
      icon={SquareTerminal}
      title={before ? 'No session is open' : 'No sessions yet'}
      action={
        ready ? (
          <Button variant="primary" icon={Plus} onClick={onCreate}>
            New session <CommandKeys id="session.new" />
          </Button>
        ) : undefined
      }
    >
      {!ready
        ? 'Sessions can be made as soon as the environment is ready.'
        : before
          ? 'Start a new one, or bring one of those below back to life.'
          : environment.repositoryUrl
            ? 'A session is a terminal on a branch of its own, in a worktree of its own. It lives on when you leave.'
            : 'A session is a terminal. It lives on when you leave.'}
    </EmptyState>
  );
}

function SessionRow({
  session,
  withSetup,
  bytes,
  onAsk,
}: {
  session: Session;
  withSetup: boolean;
  /** What its files take up, where it was measured. */
  bytes: number | undefined;
  onAsk: (question: SessionQuestion) => void;
}) {
  const { kind, word } = sessionStatus(session, useUnseen()(session));
  const menu = useSessionMenu(onAsk);
  const dead = session.status === 'dead';
  const from = startedFrom(session);
  const why = sessionWhy(session);
  return (
    <ListRow className="py-3">
      <div className="min-w-0 flex-1">
        <div className="flex min-w-0 items-center gap-2">
          <Link
            to={`/s/${session.id}`}
            data-row
            className="truncate text-base font-medium after:absolute after:inset-0 focus-visible:outline-none focus-visible:after:outline-2 focus-visible:after:-outline-offset-2 focus-visible:after:outline-ring"
          >
            {session.name}
          </Link>
          <Status kind={kind} word={word} className="ml-auto shrink-0 sm:hidden" />
        </div>
        <p className="mt-0.5 flex min-w-0 items-center gap-3 text-sm text-fg-3">
          {session.gitBranch !== null && (
            <span className="flex min-w-0 items-center gap-1">
              <GitBranch aria-hidden className="size-3.5 shrink-0" />
              <span className="truncate font-mono text-xs">{session.gitBranch}</span>
            </span>
          )}
          {from !== undefined && <span className="shrink-0 max-md:hidden">from {from}</span>}
          <Ago at={session.lastActivity ?? session.createdAt} className="shrink-0 md:hidden" />
        </p>
        {why !== undefined && session.status !== 'inactive' && (
          <p className="mt-0.5 line-clamp-2 text-sm wrap-anywhere text-fg-2">
            <VisibleLines text={why} />
          </p>
        )}
      </div>
      {withSetup && !dead && session.gitBranch !== null && (
        <div className="w-36 shrink-0 max-lg:w-auto max-sm:hidden">
          <SetupMark session={session} onShow={() => onAsk({ what: 'setup', session })} />
        </div>
      )}
      {bytes !== undefined && (
        <span
          title="On the disk"
          className="w-20 shrink-0 text-right text-sm text-fg-3 tabular-nums max-lg:hidden"
        >
          {formatBytes(bytes)}
          <span className="sr-only"> on the disk</span>
        </span>
      )}
      <Ago
        at={session.lastActivity ?? session.createdAt}
        className="w-24 shrink-0 text-right text-sm text-fg-3 max-md:hidden"
      />
      <Status kind={kind} word={word} className="w-36 shrink-0 max-sm:hidden" />
      <DropdownMenu items={menu(session)}>
        <IconButton icon={Ellipsis} label={`More about ${session.name}`} className="relative -mr-1.5" />
      </DropdownMenu>
    </ListRow>
  );
}
