import { GitCompare, Pencil, Play, ScrollText, Square, SquareTerminal, Trash2 } from 'lucide-react';
import { useState, type SyntheticEvent } from 'react';
import { useNavigate } from 'react-router';
import { useGitStatus, type GitStatus } from '@/api/git';
import { useDeleteSession, useRenameSession, useSessionName, useUpdateSession } from '@/api/queries';
import { useReviveSession } from '@/api/sessions';
import type { DeletedSession, Session } from '@/api/types';
import { useDebounced } from '@/app/debounced';
import { Button } from '@/ui/button';
import { ConfirmDialog, Dialog } from '@/ui/dialog';
import { ErrorNote } from '@/ui/error-state';
import { Field } from '@/ui/field';
import { Input } from '@/ui/input';
import type { MenuItem } from '@/ui/menu';
import { toast } from '@/ui/toast';
import { nameProblem } from '../environments/naming';
import { keptNotices } from './kept';
import { SetupDialog } from './setup';
import { counted } from './words';

export type SessionQuestion = { what: 'rename' | 'end' | 'delete' | 'setup'; session: Session };

/** What can be done with a session, as the lines of a menu. */
export function useSessionMenu(ask: (question: SessionQuestion) => void) {
  const navigate = useNavigate();
  const revive = useReviveSession();
  const bringBack = (session: Session) =>
    revive.mutate(session, {
      onSuccess: () => void navigate(`/s/${session.id}`),
      onError: (error) => toast.failed(`${session.name} was not brought back`, error),
    });
  return (session: Session, { inside = false }: { inside?: boolean } = {}): MenuItem[] => {
    const dead = session.status === 'dead';
    const open: MenuItem[] = [
      { label: 'Open', icon: SquareTerminal, onSelect: () => void navigate(`/s/${session.id}`) },
    ];
    const repository: MenuItem[] = [
      { label: 'Review changes', icon: GitCompare, onSelect: () => void navigate(`/s/${session.id}/diff`) },
      { label: 'Setup', icon: ScrollText, onSelect: () => ask({ what: 'setup', session }) },
    ];
    return [
      ...(inside || dead ? [] : open),
      ...(session.gitBranch === null || dead ? [] : repository),
      ...(dead ? [] : [{ label: 'Rename…', icon: Pencil, onSelect: () => ask({ what: 'rename', session }) }]),
      { kind: 'separator' },
      dead
        ? { label: 'Bring back', icon: Play, onSelect: () => bringBack(session) }
        : { label: 'End…', icon: Square, onSelect: () => ask({ what: 'end', session }) },
      { label: 'Delete…', icon: Trash2, danger: true, onSelect: () => ask({ what: 'delete', session }) },
    ];
  };
}

/** The dialog of what was chosen in a session's menu. */
export function SessionDialog({
  question: { what, session },
  onClose,
  onDeleted,
}: {
  question: SessionQuestion;
  onClose: () => void;
  onDeleted?: (() => void) | undefined;
}) {
  switch (what) {
    case 'rename':
      return <RenameSession session={session} onClose={onClose} />;
    case 'end':
      return <EndSession session={session} onClose={onClose} />;
    case 'delete':
      return <DeleteSession session={session} onClose={onClose} onDeleted={onDeleted} />;
    case 'setup':
      return <SetupDialog session={session} onClose={onClose} />;
  }
}

const RENAME_FORM = 'rename-session';
const CHECK_AFTER_MS = 300;

function RenameSession({ session, onClose }: { session: Session; onClose: () => void }) {
  const [name, setName] = useState(session.name);
  const rename = useRenameSession();
  const settled = useDebounced(name, CHECK_AFTER_MS);
  const unchanged = name === session.name;
  const askable = settled !== session.name && nameProblem(settled) === undefined ? settled : '';
  const check = useSessionName(session.environmentId, askable);
  const taken = settled === name && check.data?.available === false;
  const problem =
    nameProblem(name) ?? (taken ? 'Another session of this environment has the name.' : undefined);
  const submit = (event: SyntheticEvent) => {
    event.preventDefault();
    if (unchanged) onClose();
    if (unchanged || problem !== undefined || rename.isPending) return;
    rename.mutate(
      { id: session.id, environmentId: session.environmentId, changes: { name } },
      { onSuccess: onClose },
    );
  };
  return (
    <Dialog
      open
      onOpenChange={(open) => {
        if (!open) onClose();
      }}
      title="Rename the session"
      description="Its branch and worktree keep their names."
      width="sm"
      footer={
        <>
          <Button onClick={onClose}>Cancel</Button>
          <Button type="submit" form={RENAME_FORM} variant="primary" busy={rename.isPending}>
            Rename
          </Button>
        </>
      }
    >
      <form id={RENAME_FORM} onSubmit={submit} noValidate className="flex flex-col gap-3">
        {rename.isError && <ErrorNote error={rename.error} />}
        <Field label="Name" error={problem}>
          {(control) => (
            <Input
              {...control}
              autoFocus
              autoComplete="off"
              maxLength={80}
              value={name}
              onFocus={(event) => event.target.select()}
              onChange={(event) => setName(event.target.value)}
            />
          )}
        </Field>
      </form>
    </Dialog>
  );
}

function EndSession({ session, onClose }: { session: Session; onClose: () => void }) {
  const update = useUpdateSession();
  return (
    <ConfirmDialog
      open
      onOpenChange={(open) => {
        if (!open) onClose();
      }}
      title={`End ${session.name}?`}
      action="End session"
      busy={update.isPending}
      onConfirm={() =>
        update.mutate(
          { id: session.id, environmentId: session.environmentId, changes: { status: 'dead' } },
          { onSuccess: onClose },
        )
      }
    >
      <p>
        The programs in its terminal are ended.{' '}
        {session.gitBranch === null
          ? 'Files stay as they are.'
          : 'The worktree stays as it is, with uncommitted work in it.'}{' '}
        You can bring the session back later.
      </p>
      {update.isError && <ErrorNote error={update.error} />}
    </ConfirmDialog>
  );
}

/** What a session has that the remote has not, in words; undefined where there is nothing. Pure. */
export function unsavedWork(status: GitStatus): string | undefined {
  const files = status.files.length;
  const more = status.truncated ? 'more than ' : '';
  const parts = [
    ...(files > 0 ? [`${more}${counted(files, 'uncommitted file')}`] : []),
    ...(status.ahead > 0 ? [counted(status.ahead, 'unpushed commit')] : []),
    ...(status.upstream || status.ahead > 0 ? [] : ['a branch that was never pushed']),
  ];
  return parts.length === 0 ? undefined : parts.join(' and ');
}

function DeleteSession({
  session,
  onClose,
  onDeleted,
}: {
  session: Session;
  onClose: () => void;
  onDeleted: (() => void) | undefined;
}) {
  const remove = useDeleteSession();
  const { id, environmentId, name } = session;
  // A promise and no callback: the event of the deletion may take the page from under this dialog
  // before the answer comes, and what was kept has to be told all the same.
  const confirm = () => void remove.mutateAsync({ id, environmentId }).then(told, () => undefined);
  const told = ({ kept, teardown, pending }: DeletedSession) => {
    const failed = teardown && teardown.status !== 'succeeded' ? teardown : undefined;
    if (kept || failed) {
      keptNotices.add({ id, environmentId, name, kept: kept ?? null, teardown: failed ?? null });
    }
    toast.ok(
      `${name} is deleted`,
      pending === true ? { description: 'Its worktree is removed as soon as the sandbox runs.' } : {},
    );
    onClose();
    onDeleted?.();
  };
  return (
    <ConfirmDialog
      open
      onOpenChange={(open) => {
        if (!open) onClose();
      }}
      title={`Delete ${name}?`}
      action="Delete session"
      busy={remove.isPending}
      onConfirm={confirm}
    >
      <p>
        Its terminal and the programs in it are ended
        {session.gitBranch === null ? '.' : ', and its worktree is removed.'}
      </p>
      {session.gitBranch !== null && <WorkAtStake session={session} />}
      {remove.isError && <ErrorNote error={remove.error} />}
    </ConfirmDialog>
  );
}

function WorkAtStake({ session }: { session: Session }) {
  const { data } = useGitStatus(session.id, session.status !== 'dead');
  const unsaved = data && unsavedWork(data);
  return (
    <p>
      {unsaved !== undefined && <strong className="font-medium text-fg">It has {unsaved}. </strong>}
      Commits that were not pushed and changes that were not committed are kept in the environment, and you
      are told where.
    </p>
  );
}
