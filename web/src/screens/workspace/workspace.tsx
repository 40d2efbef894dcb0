import { Ellipsis, GitCompare, PanelRight, Plus, Rocket, SquareTerminal } from 'lucide-react';
import { lazy, Suspense, useCallback, useRef, useState } from 'react';
import { useNavigate, useSearchParams } from 'react-router';
import { useDeployments } from '@/api/deployments';
import { useGitStatus } from '@/api/git';
import { useEnvironment, useSessions } from '@/api/queries';
import type { Environment, Session } from '@/api/types';
import { useCommands } from '@/app/commands';
import { CommandKeys } from '@/app/keys/shown';
import { Page } from '@/app/page';
import { useUnseen } from '@/app/seen';
import { sessionStatus } from '@/app/status';
import { isBoolean, useStored } from '@/app/stored';
import { logout } from '@/auth/session';
import { LazyTerminalPanes, type PaneSession } from '@/terminal';
import { Button, IconButton } from '@/ui/button';
import { ErrorState } from '@/ui/error-state';
import { DropdownMenu } from '@/ui/menu';
import { SkeletonRows } from '@/ui/skeleton';
import { Split } from '@/ui/split';
import { StatusDot } from '@/ui/status';
import { Segmented } from '@/ui/toggles';
import { isReady } from '../environments/steps';
import { Starting } from '../environment/overview';
import { SessionDialog, useSessionMenu, type SessionQuestion } from '../environment/session-dialogs';
import { placeFrom, placeParams, type Place } from '../review/scope';
import { SyncResult, useSync, type Sync } from '../review/sync';
import { AgentBar } from './agent-bar';
import { useFreshWorktree } from './freshness';
import { GitBar } from './git-bar';
import { useLooked } from './looked';
import { isRailTab, Rail, RailPart, railTabs, type RailTab } from './rail';
import { EndedSession, NoSuchSession } from './states';
import { useWide } from './wide';

const ReviewPanel = lazy(async () => ({ default: (await import('../review/panel')).ReviewPanel }));
const CreateSession = lazy(async () => ({
  default: (await import('../environment/create-session')).CreateSession,
}));

/** The sessions of one environment at work: terminals in tabs and panes, and what is about the one in use. */
export function Workspace({
  environmentId,
  sessionId,
  found,
}: {
  environmentId: string;
  sessionId: string;
  /** The session as it was read by itself. */
  found: Session | undefined;
}) {
  const environment = useEnvironment(environmentId);
  const sessions = useSessions(environmentId);
  const session = sessions.data?.find((one) => one.id === sessionId) ?? found;
  const crumbs = [{ label: environment.data?.name ?? 'Environment', to: `/e/${environmentId}` }];
  if (session !== undefined && sessions.data !== undefined) {
    return (
      <WorkspaceScreen
        session={session}
        sessions={sessions.data}
        environment={environment.data}
        crumbs={crumbs}
      />
    );
  }
  return (
    <Page title="Session" crumbs={crumbs}>
      {sessions.isPending && <SkeletonRows rows={5} label="Loading the session" />}
      {sessions.isError && (
        <ErrorState
          title="The sessions could not be read"
          error={sessions.error}
          busy={sessions.isFetching}
          onRetry={() => void sessions.refetch()}
        />
      )}
      {sessions.data !== undefined && <NoSuchSession />}
    </Page>
  );
}

type View = 'terminal' | RailTab;

/** The review is part of the address, with the place in it: Back closes it. */
function useReviewing(): {
  on: boolean;
  place: Place;
  open: (place?: Place) => void;
  move: (place: Place) => void;
  close: () => void;
} {
  const [params, setParams] = useSearchParams();
  const at = (place: Place) => ({ review: '1', ...placeParams(place) });
  return {
    on: params.has('review'),
    place: placeFrom(params),
    open: (place = { scope: { kind: 'uncommitted' } }) => setParams(at(place)),
    move: (place) => setParams(at(place), { replace: true }),
    close: () => setParams({}, { replace: true }),
  };
}

function WorkspaceScreen({
  session,
  sessions,
  environment,
  crumbs,
}: {
  session: Session;
  sessions: readonly Session[];
  environment: Environment | undefined;
  crumbs: readonly { label: string; to: string }[];
}) {
  const wide = useWide();
  const navigate = useNavigate();
  const area = useRef<HTMLDivElement>(null);
  const [railOpen, setRailOpen] = useStored('workspace.rail.open', true, isBoolean);
  const [railTab, setRailTab] = useStored<RailTab>('workspace.rail.tab', 'changes', isRailTab);
  const [view, setView] = useState<View>('terminal');
  const [question, setQuestion] = useState<SessionQuestion>();
  const reviewing = useReviewing();
  const running = environment?.status === 'running';
  const git = running && session.gitBranch !== null && session.status !== 'dead';
  const status = useGitStatus(session.id, git);
  const sync = useSessionSync(session.id);
  const newSession = useNewSessionDialog();
  const menu = useSessionMenu(setQuestion);
  useFreshWorktree(session.id, git, area);
  useLooked(session);

  const deploying = useDeployments(session.id, session.gitBranch !== null).data?.some(({ live }) => live);
  const tabs = railTabs(session, status.data?.files.length, deploying);
  const tab = tabs.some(({ value }) => value === railTab) ? railTab : 'info';
  const shown: View = wide || tabs.some(({ value }) => value === view) ? view : 'terminal';
  const review = (file?: string) => {
    const place: Place = { scope: { kind: 'uncommitted' }, file };
    if (wide) reviewing.open(place);
    else void navigate(`/s/${session.id}/diff?${new URLSearchParams(placeParams(place)).toString()}`);
  };
  const showTerminal = () => {
    if (reviewing.on) reviewing.close();
    setView('terminal');
    requestAnimationFrame(() => area.current?.querySelector<HTMLElement>('.xterm-helper-textarea')?.focus());
  };
  const showRail = (next: RailTab) => {
    if (!wide) {
      setView(next);
      return;
    }
    if (reviewing.on) reviewing.close();
    setRailTab(next);
    setRailOpen(true);
  };
  useWorkspaceCommands({
    git,
    repository: session.gitBranch !== null,
    review: () => review(),
    showTerminal,
    showRail,
    toggleRail: () => setRailOpen(!railOpen),
    push: () => sync.push(),
    pull: () => sync.pull(),
    create: () =>
      void newSession.ask().then((made) => {
        if (made) void navigate(`/s/${made.id}`);
      }),
  });

  const { kind, word } = sessionStatus(session, useUnseen()(session));
  const inReview = wide && reviewing.on;
  const news = (
    <SyncResult sync={sync} environmentId={session.environmentId} onLook={() => showRail('changes')} />
  );
  const inRail = wide && railOpen && !inReview;
  const part = {
    session,
    environment,
    running,
    file: undefined,
    onOpen: review,
    onPush: () => sync.push(),
    pushing: sync.pushed.isPending,
  };
  return (
    <Page
      title={session.name}
      layout="full"
      crumbs={crumbs}
      heading={
        <span className="flex min-w-0 items-center gap-2">
          <StatusDot kind={kind} label={word} />
          <span className="truncate">{session.name}</span>
        </span>
      }
      actions={
        <>
          {git && status.data && (
            <GitBar status={status.data} sync={sync} onReview={() => review()} className="max-md:hidden" />
          )}
          {inReview ? (
            <Button icon={SquareTerminal} onClick={showTerminal} className="max-md:hidden">
              Terminal
            </Button>
          ) : (
            <IconButton
              icon={PanelRight}
              label={railOpen ? 'Hide the panel' : 'Show the panel'}
              shortcut={<CommandKeys id="workspace.rail" />}
              aria-expanded={railOpen}
              onClick={() => setRailOpen(!railOpen)}
              className="aria-expanded:bg-transparent max-md:hidden"
            />
          )}
          <DropdownMenu items={menu(session, { inside: true })}>
            <IconButton icon={Ellipsis} label={`More about ${session.name}`} className="-mr-1.5" />
          </DropdownMenu>
        </>
      }
    >
      <div ref={area} className="relative flex min-h-0 flex-1 flex-col">
        {!wide && tabs.length > 0 && (
          <Segmented<View>
            label="What is shown"
            value={shown}
            onChange={setView}
            options={[{ value: 'terminal', label: 'Terminal' }, ...tabs.map(withCount)]}
            className="m-2 mb-0 [&>button]:h-9 [&>button]:px-1.5"
          />
        )}
        <Split
          id="workspace"
          label="Width of the terminals"
          initial={0.69}
          min={0.4}
          max={0.86}
          only={wide ? (inRail ? undefined : 'first') : shown === 'terminal' ? 'first' : 'second'}
          className="h-auto min-h-0 flex-1"
          first={
            <div className="flex size-full min-h-0 flex-col">
              {session.agentState && session.status !== 'dead' && (
                <AgentBar key={session.id} session={session} />
              )}
              <Centre
                session={session}
                sessions={sessions}
                environment={environment}
                hidden={inReview}
                onCreate={newSession.ask}
                onDelete={() => setQuestion({ what: 'delete', session })}
              />
              {inReview && (
                <section aria-label="Review" className="flex min-h-0 flex-1 flex-col">
                  <Suspense fallback={<SkeletonRows rows={6} label="Opening the review" />}>
                    <ReviewPanel
                      key={session.id}
                      sessionId={session.id}
                      environmentId={session.environmentId}
                      place={reviewing.place}
                      onPlace={reviewing.move}
                      onClose={showTerminal}
                    />
                  </Suspense>
                </section>
              )}
            </div>
          }
          second={
            wide ? (
              <Rail tab={tab} tabs={tabs} onTab={setRailTab} news={inRail ? news : null} {...part} />
            ) : (
              <div className="flex size-full min-h-0 flex-col">
                {git && status.data && shown === 'changes' && (
                  <GitBar
                    status={status.data}
                    sync={sync}
                    onReview={() => review()}
                    className="justify-between px-3 pt-2"
                  />
                )}
                {shown !== 'terminal' && <RailPart tab={shown} {...part} />}
              </div>
            )
          }
        />
        {!inReview && !inRail && (
          <div className="absolute top-2 right-2 z-20 flex w-[min(26rem,calc(100%-1rem))] flex-col shadow-lg empty:hidden">
            {news}
          </div>
        )}
      </div>
      {question && (
        <SessionDialog
          question={question}
          onClose={() => setQuestion(undefined)}
          onDeleted={() => void navigate(`/e/${session.environmentId}`)}
        />
      )}
      <Suspense fallback={null}>
        {newSession.asking && environment && (
          <CreateSession
            environment={environment}
            wish={{}}
            onClose={() => newSession.answer(null)}
            onCreated={newSession.answer}
          />
        )}
      </Suspense>
    </Page>
  );
}

/** Pushing and pulling of the session in use; what came of another's is told when that one is in use again. */
function useSessionSync(sessionId: string): Sync {
  const sync = useSync(sessionId);
  const [of, setOf] = useState(sessionId);
  const noted =
    <Given extends unknown[]>(act: (...given: Given) => void) =>
    (...given: Given) => {
      setOf(sessionId);
      act(...given);
    };
  return {
    ...sync,
    last: of === sessionId ? sync.last : undefined,
    push: noted(sync.push),
    pull: noted(sync.pull),
    fetch: noted(sync.fetch),
  };
}

function withCount({
  value,
  label,
  count,
}: {
  value: RailTab;
  label: React.ReactNode;
  count?: number | undefined;
}) {
  return {
    value,
    label: (
      <>
        {label}
        {count !== undefined && count > 0 && <span className="text-xs text-fg-3 tabular-nums">{count}</span>}
      </>
    ),
  };
}

/** Asks for a new session, and gives it to who asked; null when somebody thought better of it. */
function useNewSessionDialog() {
  const [asking, setAsking] = useState(false);
  const waiting = useRef<((made: Session | null) => void) | undefined>(undefined);
  const ask = useCallback(
    () =>
      new Promise<Session | null>((resolve) => {
        waiting.current?.(null);
        waiting.current = resolve;
        setAsking(true);
      }),
    [],
  );
  const answer = useCallback((made: Session | null) => {
    waiting.current?.(made);
    waiting.current = undefined;
    setAsking(false);
  }, []);
  return { asking, ask, answer };
}

/** The terminals, or what keeps them from being there. */
function Centre({
  session,
  sessions,
  environment,
  hidden,
  onCreate,
  onDelete,
}: {
  session: Session;
  sessions: readonly Session[];
  environment: Environment | undefined;
  hidden: boolean;
  onCreate: () => Promise<Session | null>;
  onDelete: () => void;
}) {
  const navigate = useNavigate();
  // What was open stays so when it ends: its last words can be read.
  const [opened, setOpened] = useState<ReadonlySet<string>>(new Set());
  const can = environment !== undefined && (isReady(environment) || environment.status === 'stopped');
  const begun = opened.size > 0;
  if (session.status !== 'dead' && can && !opened.has(session.id))
    setOpened(new Set([...opened, session.id]));
  const onActive = useCallback(
    (id: string | null) => {
      // The terminal in use is the one that the address, the title and the panel are about.
      if (id !== null && id !== session.id) void navigate(`/s/${id}`, { replace: true });
    },
    [navigate, session.id],
  );
  if (environment === undefined) return <SkeletonRows rows={5} label="Loading the environment" />;
  if (session.status === 'dead' && !opened.has(session.id)) {
    return hidden ? null : <EndedSession session={session} onDelete={onDelete} />;
  }
  if (!can && !begun) {
    return (
      <div className="min-h-0 flex-1 overflow-y-auto p-4 md:p-8">
        <div className="mx-auto max-w-xl">
          <Starting environment={environment} />
        </div>
      </div>
    );
  }
  const panes: PaneSession[] = sessions.filter(({ id, status }) => status !== 'dead' || opened.has(id));
  return (
    <div hidden={hidden} className="min-h-0 flex-1">
      <Suspense fallback={<SkeletonRows rows={3} label="Opening the terminal" />}>
        <LazyTerminalPanes
          workspace={session.environmentId}
          sessions={panes}
          first={session.id}
          onCreate={onCreate}
          onActive={onActive}
          onSignIn={logout}
        />
      </Suspense>
    </div>
  );
}

function useWorkspaceCommands({
  git,
  repository,
  review,
  showTerminal,
  showRail,
  toggleRail,
  push,
  pull,
  create,
}: {
  git: boolean;
  repository: boolean;
  review: () => void;
  showTerminal: () => void;
  showRail: (tab: RailTab) => void;
  toggleRail: () => void;
  push: () => void;
  pull: () => void;
  create: () => void;
}): void {
  const group = 'Session';
  useCommands([
    { id: 'session.new', title: 'New session here', group: 'Create', keys: 'n', icon: Plus, run: create },
    {
      id: 'workspace.rail',
      title: 'Show or hide the panel',
      group,
      keys: 'Mod+Shift+B',
      icon: PanelRight,
      run: toggleRail,
    },
    {
      id: 'workspace.terminal',
      title: 'Go to the terminal',
      group,
      keys: 'v t',
      icon: SquareTerminal,
      run: showTerminal,
    },
    {
      id: 'workspace.changes',
      title: 'Show the changes',
      group,
      keys: 'v c',
      enabled: repository,
      run: () => showRail('changes'),
    },
    {
      id: 'workspace.commands',
      title: 'Show setup and commands',
      group,
      keys: 'v r',
      enabled: repository,
      run: () => showRail('commands'),
    },
    {
      id: 'workspace.info',
      title: 'Show what the session is',
      group,
      keys: 'v i',
      run: () => showRail('info'),
    },
    {
      id: 'workspace.deploy',
      title: 'Deploy',
      group,
      keys: 'v y',
      icon: Rocket,
      keywords: 'coolify deployment roll back publish',
      enabled: repository,
      run: () => showRail('deploy'),
    },
    {
      id: 'workspace.review',
      title: 'Review the changes',
      group,
      keys: 'v d',
      icon: GitCompare,
      enabled: git,
      run: review,
    },
    {
      id: 'review.commit',
      title: 'Commit',
      group,
      keys: 'x c',
      keywords: 'git commit',
      enabled: git,
      run: review,
    },
    // The review has these too, under the same names.
    { id: 'review.push', title: 'Push', group, keys: 'x u', keywords: 'git push', enabled: git, run: push },
    { id: 'review.pull', title: 'Pull', group, keys: 'x d', keywords: 'git pull', enabled: git, run: pull },
  ]);
}
