import { Ellipsis, GitCompare, Rocket, RotateCw, TriangleAlert, Undo2, Upload } from 'lucide-react';
import { useRef, useState, type ReactNode } from 'react';
import { Link } from 'react-router';
import { useCoolifyConnection } from '@/api/coolify';
import {
  useDeploy,
  useDeployments,
  useDeploymentCheck,
  useRememberedApplication,
  type Deployment,
  type DeploymentCheck,
  type DeploymentWish,
  type Target,
} from '@/api/deployments';
import { ApiError } from '@/api/errors';
import { Button, IconButton } from '@/ui/button';
import { cn } from '@/ui/cn';
import { Collapsible } from '@/ui/collapsible';
import { ErrorNote } from '@/ui/error-state';
import { DropdownMenu } from '@/ui/menu';
import { Notice } from '@/ui/notice';
import { SkeletonRows } from '@/ui/skeleton';
import { Status } from '@/ui/status';
import { short } from '../environment/words';
import { Visible } from '../review/visible';
import { ChangeApplication, FirstApplication } from './application-picker';
import { ConnectionError, WhenConnected } from './connection';
import {
  BuildLogPart,
  CancelDeployment,
  DeploymentSaid,
  DeploymentState,
  OutLink,
  Steps,
  WhatIsDeployed,
} from './deployment-view';
import { History } from './history';
import { RollbackDialog } from './rollback';
import { applicationStatus, currentOf, pushedWish, remedyOf, underWay } from './words';

/** What can be done about work that is not pushed, where there is a way to. */
export type Ways = { review?: (() => void) | undefined; push?: (() => void) | undefined; pushing?: boolean };

export type DeployPanelProps = {
  target: Target;
  /** Names the state of the worktree, so that it is looked at anew with another one. */
  worktree: string;
  ways?: Ways;
  /** The pull request that the session began from. */
  pullRequest?: number | undefined;
  /** Beside the terminals, where there is little room. */
  narrow?: boolean;
};

/** Deploying the work of a session or an environment: what would be, what is, and what was. */
export function DeployPanel(props: DeployPanelProps) {
  const { target, narrow = false } = props;
  const rows = useDeployments(target.id);
  const connection = useCoolifyConnection();
  const [back, setBack] = useState<{ appId: string; appName: string; commit?: string | undefined }>();
  const current = rows.data && currentOf(rows.data);
  const here = useRef<HTMLDivElement>(null);
  const look = () =>
    requestAnimationFrame(() => here.current?.scrollIntoView({ block: 'start', behavior: 'smooth' }));
  const remembered = useRememberedApplication(target.environmentId);
  const { appId = null, appName = null } = remembered.data ?? {};
  return (
    <div className={cn('relative flex flex-col', narrow ? 'gap-5' : 'gap-8')}>
      <DeploymentSaid row={current} />
      <Part title="Deploy">
        <WhenConnected>
          {remembered.isPending && <SkeletonRows rows={2} label="Looking for the application" />}
          {remembered.isError && remembered.data === undefined && (
            <Failed query={remembered} error={remembered.error} />
          )}
          {remembered.data &&
            (appId === null ? (
              <FirstApplication environmentId={target.environmentId} />
            ) : (
              <Ready
                key={appId}
                {...props}
                appId={appId}
                appName={appName ?? appId}
                rows={rows.data ?? []}
                onStarted={look}
              />
            ))}
        </WhenConnected>
      </Part>
      {current && (
        <div ref={here} className="scroll-mt-3">
          <Part title={current.live ? 'Under way' : 'Last deployment'}>
            <Current key={current.id} row={current} />
          </Part>
        </div>
      )}
      {(connection.data?.configured === true || (rows.data?.length ?? 0) > 0) && (
        <Part
          title="History"
          aside={
            appId !== null &&
            connection.data?.configured === true && (
              <Button
                size="sm"
                variant="ghost"
                icon={Undo2}
                onClick={() => setBack({ appId, appName: appName ?? appId })}
              >
                Roll back…
              </Button>
            )
          }
        >
          {rows.isPending && <SkeletonRows rows={3} label="Loading the deployments" />}
          {rows.isError && rows.data === undefined && <Failed query={rows} error={rows.error} />}
          {rows.data && (
            <History
              rows={rows.data}
              narrow={narrow}
              onRollback={(row, commit) => setBack({ appId: row.app_id, appName: row.app_name, commit })}
            />
          )}
        </Part>
      )}
      {back && (
        <RollbackDialog
          target={target}
          appId={back.appId}
          appName={back.appName}
          wanted={back.commit}
          history={rows.data ?? []}
          onClose={() => setBack(undefined)}
          onStarted={look}
        />
      )}
    </div>
  );
}

function Part({ title, aside, children }: { title: string; aside?: ReactNode; children: ReactNode }) {
  return (
    <section aria-label={title} className="min-w-0">
      <div className="mb-2 flex min-h-7 items-center justify-between gap-2">
        <h2 className="text-xs font-medium text-fg-3">{title}</h2>
        {aside}
      </div>
      {children}
    </section>
  );
}

function Failed({
  query,
  error,
}: {
  query: { isFetching: boolean; refetch: () => Promise<unknown> };
  error: unknown;
}) {
  return (
    <div className="flex flex-col items-start gap-2">
      <ConnectionError error={error} className="w-full" />
      <Button size="sm" icon={RotateCw} busy={query.isFetching} onClick={() => void query.refetch()}>
        Retry
      </Button>
    </div>
  );
}

/** The application is known: what would be deployed to it, and the button. */
function Ready({
  target,
  worktree,
  ways = {},
  pullRequest,
  appId,
  appName,
  rows,
  onStarted,
}: DeployPanelProps & {
  appId: string;
  appName: string;
  rows: readonly Deployment[];
  /** A deployment has begun, and is shown below. */
  onStarted: () => void;
}) {
  const check = useDeploymentCheck(target, appId, worktree);
  const [changing, setChanging] = useState(false);
  const shown = check.data?.application;
  return (
    <div className="flex flex-col gap-3 rounded-lg border border-line bg-surface p-3 shadow-sm">
      <div className="flex min-w-0 items-start gap-2">
        <div className="min-w-0 flex-1">
          <p className="flex min-w-0 flex-wrap items-center gap-x-2 gap-y-0.5">
            <span className="min-w-0 truncate text-base font-semibold">
              <Visible text={shown?.name ?? appName} />
            </span>
            {shown && <Status {...applicationStatus(shown)} className="text-xs" />}
          </p>
          {shown?.address && (
            <OutLink to={shown.address}>
              <Visible text={shown.address.replace(/^https?:\/\//u, '')} />
            </OutLink>
          )}
        </div>
        <Button size="sm" variant="ghost" onClick={() => setChanging(true)} className="-mt-0.5 -mr-1">
          Change<span className="sr-only"> the application</span>
        </Button>
      </div>
      {check.isPending && <SkeletonRows rows={2} label="Looking at the work" />}
      {check.isError && <Failed query={check} error={check.error} />}
      {check.data && !check.isError && (
        <Checked
          target={target}
          check={check.data}
          rows={rows}
          ways={ways}
          looking={check.isPlaceholderData}
          pullRequest={pullRequest}
          onStarted={onStarted}
        />
      )}
      {changing && (
        <ChangeApplication
          environmentId={target.environmentId}
          chosen={appId}
          chosenName={shown?.name ?? appName}
          onClose={() => setChanging(false)}
        />
      )}
    </div>
  );
}

function Checked({
  target,
  check,
  rows,
  ways,
  looking,
  pullRequest,
  onStarted,
}: {
  target: Target;
  check: DeploymentCheck;
  rows: readonly Deployment[];
  ways: Ways;
  /** What is shown is of the worktree as it was before. */
  looking: boolean;
  pullRequest: number | undefined;
  onStarted: () => void;
}) {
  const deploy = useDeploy(target);
  const appId = check.application.id;
  const same = underWay(check, rows);
  const pushed = pushedWish(check);
  const start = (wish: DeploymentWish) => deploy.mutate({ appId, ...wish }, { onSuccess: onStarted });
  return (
    <>
      <Builds check={check} />
      {check.problems.length > 0 && <Problems check={check} ways={ways} />}
      {check.matchesRepository === false && (
        <Notice>
          Coolify builds{' '}
          <span className="font-mono text-xs">{check.application.repository ?? 'no repository'}</span>, which
          is another repository than this environment’s.
        </Notice>
      )}
      {deploy.isError && <DeployError error={deploy.error} rows={rows} />}
      <div className="flex flex-wrap items-center gap-2">
        <Button
          variant="primary"
          icon={Rocket}
          disabled={!check.ready || same !== undefined || looking}
          busy={deploy.isPending}
          onClick={() => start({})}
        >
          Deploy
        </Button>
        {pushed && (
          <Button disabled={deploy.isPending || looking} onClick={() => start(pushed)}>
            {pushed.branch === undefined ? 'Deploy what is pushed' : `Deploy ${pushed.branch}`}
          </Button>
        )}
        <DropdownMenu
          items={[
            {
              label: 'Deploy without the cache',
              disabled: !check.ready || deploy.isPending || looking,
              onSelect: () => start({ force: true }),
            },
            ...(pullRequest === undefined
              ? []
              : [
                  {
                    label: `Deploy the preview of pull request ${pullRequest}`,
                    disabled: deploy.isPending || looking,
                    onSelect: () => start({ pullRequestId: pullRequest }),
                  },
                ]),
          ]}
        >
          <IconButton icon={Ellipsis} label="More ways to deploy" />
        </DropdownMenu>
      </div>
      {same && <p className="text-sm text-fg-2">This commit is being deployed.</p>}
    </>
  );
}

/** What Coolify would build: which commit, of which branch. */
function Builds({ check }: { check: DeploymentCheck }) {
  const { buildsBranch, commit, branch } = check;
  return (
    <dl className="grid grid-cols-[auto_1fr] gap-x-3 gap-y-1 text-sm">
      <dt className="text-fg-3">Builds</dt>
      <dd className="min-w-0 font-mono text-xs leading-5 wrap-anywhere">
        {buildsBranch === null ? 'no branch' : <Visible text={buildsBranch} />}
      </dd>
      {branch !== null && branch !== buildsBranch && (
        <>
          <dt className="text-fg-3">You are on</dt>
          <dd className="min-w-0 font-mono text-xs leading-5 wrap-anywhere">
            <Visible text={branch} />
          </dd>
        </>
      )}
      <dt className="text-fg-3">Commit</dt>
      <dd className="min-w-0 font-mono text-xs leading-5">
        {commit === null ? (
          <span className="font-sans text-fg-2">as the branch is pushed</span>
        ) : (
          short(commit)
        )}
      </dd>
    </dl>
  );
}

function Problems({ check, ways }: { check: DeploymentCheck; ways: Ways }) {
  return (
    <ul aria-label="What stands in the way" className="flex flex-col gap-2">
      {check.problems.map((problem) => {
        const remedy = remedyOf(problem);
        return (
          <li key={problem.code} className="flex items-start gap-2 rounded-md bg-warn-soft px-3 py-2 text-sm">
            <TriangleAlert aria-hidden className="mt-0.5 size-4 shrink-0 text-warn" />
            <div className="min-w-0 flex-1">
              <p className="font-medium wrap-anywhere">
                <Visible text={problem.message} />
              </p>
              {problem.details !== '' && (
                <p className="wrap-anywhere text-fg-2">
                  <Visible text={problem.details} />
                </p>
              )}
              {remedy === 'review' && ways.review && (
                <Button size="sm" icon={GitCompare} onClick={ways.review} className="mt-2">
                  Review and commit
                </Button>
              )}
              {remedy === 'push' && ways.push && (
                <Button
                  size="sm"
                  icon={Upload}
                  busy={ways.pushing ?? false}
                  onClick={ways.push}
                  className="mt-2"
                >
                  Push
                </Button>
              )}
            </div>
          </li>
        );
      })}
    </ul>
  );
}

/** Why it was not begun; what is told by the deployment itself is not said twice. */
function DeployError({ error, rows }: { error: unknown; rows: readonly Deployment[] }) {
  const id = error instanceof ApiError ? error.body.deploymentId : undefined;
  if (typeof id !== 'string') return <ConnectionError error={error} />;
  if (error instanceof ApiError && error.code === 'DEPLOYMENT_FAILED' && rows.some((row) => row.id === id)) {
    return null;
  }
  return (
    <div>
      <ErrorNote error={error} />
      <Link
        to={`/deployments/${id}`}
        className="mt-1 inline-flex items-center rounded-sm text-sm font-medium text-accent-fg hover:underline pointer-coarse:min-h-11"
      >
        Show it
      </Link>
    </div>
  );
}

/** The deployment that is under way, or the last one. */
function Current({ row }: { row: Deployment }) {
  return (
    <div className="flex flex-col gap-3 rounded-lg border border-line bg-surface p-3 shadow-sm">
      <div className="flex min-h-7 min-w-0 items-center justify-between gap-3">
        <DeploymentState row={row} />
        <CancelDeployment row={row} size="sm" />
      </div>
      <WhatIsDeployed row={row} />
      <p className="flex flex-wrap gap-x-4">
        <Link
          to={`/deployments/${row.id}`}
          className="inline-flex items-center rounded-sm text-sm text-accent-fg hover:underline pointer-coarse:min-h-11"
        >
          All about it<span className="sr-only">: the deployment of {row.app_name}</span>
        </Link>
        <OutLink to={row.url}>In Coolify</OutLink>
      </p>
      <div className="-mb-4">
        <Steps row={row} />
      </div>
      <Collapsible
        title="Build log"
        defaultOpen={row.status === 'pending' || row.status === 'building' || row.status === 'failed'}
      >
        <BuildLogPart row={row} className="h-72" />
      </Collapsible>
    </div>
  );
}
