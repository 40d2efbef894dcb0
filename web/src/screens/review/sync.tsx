import { ChevronDown, CircleCheck, GitBranch, RefreshCw, X } from 'lucide-react';
import { useState, type ReactNode } from 'react';
import {
  useFetch,
  usePull,
  usePush,
  type GitStatus,
  type NewPush,
  type PullMode,
  type PushedRef,
} from '@/api/git';
import { Badge, type Tone } from '@/ui/badge';
import { Button, IconButton } from '@/ui/button';
import { cn } from '@/ui/cn';
import { Collapsible } from '@/ui/collapsible';
import { ConfirmDialog } from '@/ui/dialog';
import { DropdownMenu } from '@/ui/menu';
import { Output, Refusal } from './refusal';
import { shortRef } from './scope';
import { FilePath, Visible } from './visible';

export type Sync = ReturnType<typeof useSync>;

/** Pushing, pulling and looking at the remote, one at a time, with what came of the last. */
export function useSync(sessionId: string) {
  const push = usePush(sessionId);
  const pull = usePull(sessionId);
  const fetch = useFetch(sessionId);
  const [last, setLast] = useState<'push' | 'pull' | 'fetch'>();
  const [asksForce, setAsksForce] = useState(false);
  return {
    sessionId,
    last,
    pushed: push,
    pulled: pull,
    fetched: fetch,
    busy: push.isPending || pull.isPending || fetch.isPending,
    push: (wish: NewPush = {}) => {
      setLast('push');
      push.mutate(wish);
    },
    pull: (mode: PullMode = 'ff-only') => {
      setLast('pull');
      pull.mutate(mode);
    },
    fetch: () => {
      setLast('fetch');
      fetch.mutate();
    },
    asksForce,
    askForce: setAsksForce,
    dismiss: () => setLast(undefined),
  };
}

type Standing = Pick<GitStatus, 'branch' | 'ahead' | 'behind' | 'upstream' | 'detached' | 'head'>;

/** Whether the remote has no branch of this name that is known of: a new one follows the one it began from. Pure. */
export function isUnpublished({ branch, upstream }: Pick<Standing, 'branch' | 'upstream'>): boolean {
  return upstream !== `origin/${branch}`;
}

/** How a branch stands to the remote's, in words. Pure. */
export function standing(status: Standing): string {
  const { ahead, behind, upstream, detached, head } = status;
  if (detached) return 'On a commit, on no branch';
  if (head === null) return 'No commit yet';
  if (upstream === undefined || upstream === null) return 'Not pushed yet';
  const commits = (count: number) => (count === 1 ? '1 commit' : `${count} commits`);
  if (isUnpublished(status)) {
    const parts = [
      ...(ahead > 0 ? [`${commits(ahead)} beyond ${upstream}`] : []),
      ...(behind > 0 ? [`${commits(behind)} behind ${upstream}`] : []),
    ];
    return parts.length === 0 ? `Not pushed yet, as ${upstream}` : `Not pushed yet, ${parts.join(', ')}`;
  }
  if (ahead > 0 && behind > 0) return `${commits(ahead)} to push, ${commits(behind)} to pull`;
  if (ahead > 0) return `${commits(ahead)} to push`;
  if (behind > 0) return `${commits(behind)} to pull`;
  return 'Up to date';
}

/** The branch, how far it is from the remote's, and the buttons that bring them together. */
export function SyncBar({ status, sync }: { status: GitStatus; sync: Sync }) {
  const { ahead, behind, detached, head } = status;
  const alone = status.upstream === undefined || status.upstream === null;
  const unpublished = isUnpublished(status);
  const toPush = !detached && head !== null && (ahead > 0 || alone);
  const nothing = detached || head === null;
  return (
    <div className="flex flex-col gap-2">
      <div className="flex min-w-0 items-center gap-2">
        <GitBranch aria-hidden className="size-4 shrink-0 text-fg-3" />
        <div className="min-w-0 flex-1">
          <p className="truncate font-mono text-xs leading-4" title={status.branch}>
            <Visible text={detached ? shortRef(head ?? 'HEAD') : status.branch} />
          </p>
          <p className="truncate text-xs leading-4 text-fg-3" title={standing(status)}>
            <Visible text={standing(status)} />
          </p>
        </div>
        <IconButton
          size="sm"
          icon={RefreshCw}
          label="Look at the remote"
          busy={sync.fetched.isPending}
          disabled={sync.busy}
          onClick={sync.fetch}
        />
      </div>
      <div className="flex min-w-0 items-center gap-2">
        <SplitButton
          label="Pull"
          more="More ways to pull"
          primary={behind > 0 && !toPush}
          busy={sync.pulled.isPending}
          disabled={sync.busy || nothing || alone}
          onClick={() => sync.pull()}
          items={[
            { label: 'Pull, fast-forward only', onSelect: () => sync.pull() },
            { label: 'Pull and rebase', onSelect: () => sync.pull('rebase') },
          ]}
        />
        <SplitButton
          label={unpublished && !nothing ? 'Publish' : 'Push'}
          more="More ways to push"
          primary={toPush}
          busy={sync.pushed.isPending}
          disabled={sync.busy || nothing}
          onClick={() => sync.push()}
          items={[
            { label: 'Push', onSelect: () => sync.push() },
            { label: 'Push without hooks', onSelect: () => sync.push({ noVerify: true }) },
            { kind: 'separator' },
            { label: 'Push and overwrite…', danger: true, onSelect: () => sync.askForce(true) },
          ]}
        />
      </div>
      <ForceQuestion status={status} sync={sync} />
    </div>
  );
}

function SplitButton({
  label,
  more,
  primary,
  busy,
  disabled,
  onClick,
  items,
}: {
  label: string;
  more: string;
  primary: boolean;
  busy: boolean;
  disabled: boolean;
  onClick: () => void;
  items: Parameters<typeof DropdownMenu>[0]['items'];
}) {
  const variant = primary ? 'primary' : 'secondary';
  return (
    <span className="flex min-w-0 flex-1">
      <Button
        size="sm"
        variant={variant}
        busy={busy}
        disabled={disabled}
        onClick={onClick}
        className="min-w-0 flex-1 rounded-r-none"
      >
        {label}
      </Button>
      <DropdownMenu items={items}>
        <IconButton
          size="sm"
          variant={variant}
          icon={ChevronDown}
          label={more}
          disabled={disabled}
          className={cn('w-6 rounded-l-none border-l', primary ? 'border-on-accent/30' : '-ml-px')}
        />
      </DropdownMenu>
    </span>
  );
}

export function ForceQuestion({ status, sync }: { status: GitStatus; sync: Sync }) {
  return (
    <ConfirmDialog
      open={sync.asksForce}
      onOpenChange={sync.askForce}
      title={`Overwrite ${status.branch} on the remote?`}
      action="Push and overwrite"
      onConfirm={() => {
        sync.askForce(false);
        sync.push({ force: true, ...(status.head === null ? {} : { expectedSha: status.head }) });
      }}
    >
      <p>
        Commits that are only on the remote&apos;s branch are lost to everybody who does not have them
        already.
        {status.behind > 0 &&
          ` That is ${status.behind === 1 ? '1 commit' : `${status.behind} commits`} as far as is known here.`}
      </p>
      <p>If somebody pushed since this worktree last looked at the remote, nothing is overwritten.</p>
    </ConfirmDialog>
  );
}

/** What came of the last push, pull or look; stays until it is dismissed. */
export function SyncResult({
  sync,
  environmentId,
  onLook,
}: {
  sync: Sync;
  environmentId: string;
  onLook: () => void;
}) {
  const { last, pushed, pulled, fetched, sessionId } = sync;
  if (last === undefined) return null;
  const mutation = { push: pushed, pull: pulled, fetch: fetched }[last];
  if (mutation.isPending) return null;
  if (mutation.isError) {
    const again = {
      push: () => sync.push(pushed.variables),
      pull: () => sync.pull(pulled.variables),
      fetch: sync.fetch,
    }[last];
    return (
      <Refusal
        error={mutation.error}
        sessionId={sessionId}
        environmentId={environmentId}
        onDismiss={sync.dismiss}
        ways={{
          retry: again,
          look: () => {
            sync.dismiss();
            onLook();
          },
          pull: () => sync.pull(),
          rebase: () => sync.pull('rebase'),
          push: () => sync.push(),
          force: () => sync.askForce(true),
          fetch: sync.fetch,
          ...(last === 'push'
            ? { 'skip-hooks': () => sync.push({ ...pushed.variables, noVerify: true }) }
            : {}),
        }}
      />
    );
  }
  if (last === 'push' && pushed.data) {
    const { updates, branch, stdout, stderr } = pushed.data;
    return (
      <Result
        title={updates.length === 0 ? `The remote had all of ${branch} already` : `Pushed ${branch}`}
        onDismiss={sync.dismiss}
      >
        <PushedRefs refs={updates} />
        {(stderr.trim() !== '' || stdout.trim() !== '') && (
          <Collapsible title="What git printed">
            <Output text={`${stdout}${stderr}`.trim()} label="What git printed" />
          </Collapsible>
        )}
      </Result>
    );
  }
  if (last === 'pull' && pulled.data) {
    const { branch, upstream, updated, commits } = pulled.data;
    return (
      <Result
        title={
          updated
            ? `${commits === 1 ? '1 commit' : `${commits} commits`} came from ${upstream}`
            : `${branch} has everything of ${upstream}`
        }
        onDismiss={sync.dismiss}
      />
    );
  }
  if (last === 'fetch' && fetched.data) {
    const { updates } = fetched.data;
    return (
      <Result
        title={
          updates.length === 0
            ? 'Nothing is new on the remote'
            : `${updates.length === 1 ? '1 branch' : `${updates.length} branches`} changed on the remote`
        }
        onDismiss={sync.dismiss}
      />
    );
  }
  return null;
}

export function Result({
  title,
  children,
  onDismiss,
}: {
  title: ReactNode;
  children?: ReactNode;
  onDismiss: () => void;
}) {
  return (
    <div role="status" className="rounded-md border border-ok/30 bg-ok-soft text-sm">
      <div className="flex items-start gap-2 px-3 py-2">
        <CircleCheck aria-hidden className="mt-0.5 size-4 shrink-0 text-ok" />
        <div className="flex min-w-0 flex-1 flex-col gap-1">
          <p className="font-medium break-words">{title}</p>
          {children}
        </div>
        <IconButton size="sm" icon={X} label="Dismiss" onClick={onDismiss} className="-mt-1 -mr-1.5" />
      </div>
    </div>
  );
}

const OUTCOMES: Readonly<Record<string, readonly [tone: Tone, word: string]>> = {
  ok: ['ok', 'arrived'],
  rejected: ['bad', 'rejected by the upstream'],
  refused: ['bad', 'refused by the push policy'],
  failed: ['warn', 'not known'],
};

/** Each ref of a push: from which commit to which, and what became of it. */
export function PushedRefs({ refs }: { refs: readonly PushedRef[] }) {
  if (refs.length === 0) return null;
  return (
    <ul aria-label="Pushed refs" className="flex flex-col gap-1">
      {refs.map((one) => {
        const [tone, word] = OUTCOMES[one.outcome] ?? ['neutral', one.outcome];
        return (
          <li key={one.ref} className="flex min-w-0 flex-col gap-0.5">
            <span className="flex min-w-0 flex-wrap items-center gap-x-2 gap-y-0.5">
              <FilePath name={one.ref.replace(/^refs\/(?:heads|tags)\//u, '')} />
              <span className="font-mono text-xs text-fg-2">
                {isZero(one.old) ? 'new' : one.old.slice(0, 8)} →{' '}
                {isZero(one.new) ? 'gone' : one.new.slice(0, 8)}
              </span>
              <Badge tone={tone}>{word}</Badge>
            </span>
            {one.reason !== undefined && one.reason !== null && (
              <span className="text-xs break-words text-fg-2">
                <Visible text={one.reason} />
              </span>
            )}
          </li>
        );
      })}
    </ul>
  );
}

const isZero = (hash: string) => /^0+$/u.test(hash);
