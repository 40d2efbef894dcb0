import { Pencil, Plus, Server, Trash2, TriangleAlert } from 'lucide-react';
import { useState, type SyntheticEvent } from 'react';
import { ApiError } from '@/api/errors';
import { useGitHosts, usePutGitHost, useRemoveGitHost, type GitHost } from '@/api/hosts';
import { Button, IconButton } from '@/ui/button';
import { ConfirmDialog, Dialog } from '@/ui/dialog';
import { EmptyState } from '@/ui/empty';
import { ErrorNote, ErrorState } from '@/ui/error-state';
import { Field } from '@/ui/field';
import { Input, PasswordInput } from '@/ui/input';
import { List, ListRow } from '@/ui/list';
import { SkeletonRows } from '@/ui/skeleton';
import { Ago } from '@/ui/time';
import { toast } from '@/ui/toast';
import { SettingsPage } from './frame';

const FORM_ID = 'git-host';

/** Makes of what a person pastes, often a repository's whole address, the address of its host. Pure. */
export function hostOf(text: string): string {
  const trimmed = text.trim();
  const ssh = /^[^@/\s:]+@([^:/\s]+):(?!\/\/)/u.exec(trimmed);
  if (ssh?.[1]) return `https://${ssh[1]}`;
  const match = /^(https?:\/\/)?(?:[^@/\s]*@)?([^/\s?#]+)/iu.exec(trimmed);
  if (!match?.[2]) return trimmed;
  return `${(match[1] ?? 'https://').toLowerCase()}${match[2]}`;
}

export function GitHostSettings() {
  const hosts = useGitHosts();
  const [editing, setEditing] = useState<GitHost | 'new'>();
  const [removing, setRemoving] = useState<GitHost>();
  const add = (
    <Button icon={Plus} onClick={() => setEditing('new')}>
      Add a git host
    </Button>
  );
  return (
    <SettingsPage
      title="Git hosts"
      lead="A user name and a token for a host that is not GitHub. The server uses them for you; they never enter a sandbox and are never shown again."
    >
      {hosts.isPending && <SkeletonRows rows={2} label="Loading your git hosts" />}
      {hosts.isError && hosts.data === undefined && (
        <ErrorState
          title="Your git hosts could not be read"
          error={hosts.error}
          busy={hosts.isFetching}
          onRetry={() => void hosts.refetch()}
        />
      )}
      {hosts.data?.length === 0 && (
        <EmptyState
          icon={Server}
          title="No git hosts yet"
          action={add}
          className="rounded-lg border border-line py-10"
        >
          Add one to clone and push private repositories of GitLab, Forgejo, Gitea, Bitbucket or a server of
          your own.
        </EmptyState>
      )}
      {hosts.data !== undefined && hosts.data.length > 0 && (
        <div className="flex flex-col gap-4">
          <div className="flex justify-end">{add}</div>
          <List aria-label="Git hosts">
            {hosts.data.map((one) => (
              <HostRow
                key={one.id}
                host={one}
                onEdit={() => setEditing(one)}
                onRemove={() => setRemoving(one)}
              />
            ))}
          </List>
        </div>
      )}
      {editing !== undefined && (
        <HostDialog host={editing === 'new' ? undefined : editing} onClose={() => setEditing(undefined)} />
      )}
      {removing && <RemoveHost host={removing} onClose={() => setRemoving(undefined)} />}
    </SettingsPage>
  );
}

function HostRow({ host, onEdit, onRemove }: { host: GitHost; onEdit: () => void; onRemove: () => void }) {
  return (
    <ListRow className="items-start py-3">
      <Server aria-hidden className="mt-0.5 size-4 shrink-0 text-fg-3" />
      <div className="min-w-0 flex-1">
        <p className="truncate text-base font-medium">{host.origin}</p>
        <p className="mt-0.5 flex flex-wrap gap-x-3 text-sm text-fg-3">
          <span>
            as <span className="text-fg-2">{host.username}</span>
          </span>
          {host.lastUsedAt === undefined || host.lastUsedAt === null ? (
            <span>Not used yet</span>
          ) : (
            <span>
              Used <Ago at={host.lastUsedAt} />
            </span>
          )}
        </p>
        {host.lastError !== undefined && host.lastError !== null && (
          <p className="mt-1 flex items-start gap-1.5 text-sm text-bad">
            <TriangleAlert aria-hidden className="mt-0.5 size-3.5 shrink-0" />
            {host.lastError}
          </p>
        )}
      </div>
      <span className="-mr-1.5 flex shrink-0">
        <IconButton icon={Pencil} label={`Change ${host.origin}`} onClick={onEdit} />
        <IconButton icon={Trash2} variant="danger-ghost" label={`Remove ${host.origin}`} onClick={onRemove} />
      </span>
    </ListRow>
  );
}

function HostDialog({ host, onClose }: { host: GitHost | undefined; onClose: () => void }) {
  const [origin, setOrigin] = useState(host?.origin ?? '');
  const [username, setUsername] = useState(host?.username ?? '');
  const [password, setPassword] = useState('');
  const [tried, setTried] = useState(false);
  const put = usePutGitHost();
  // The server's sentence says which of the three it is about.
  const refused =
    put.error instanceof ApiError && put.error.code === 'GIT_HOST_INVALID' ? put.error.message : '';
  const about = /^The username|Give the username/u.test(refused)
    ? 'username'
    : refused.startsWith('The password')
      ? 'password'
      : refused === ''
        ? undefined
        : 'origin';
  const submit = (event: SyntheticEvent) => {
    event.preventDefault();
    setTried(true);
    if (origin.trim() === '' || password === '') return;
    put.mutate(
      {
        origin: hostOf(origin),
        password: password.trim(),
        ...(username.trim() === '' ? {} : { username: username.trim() }),
      },
      {
        onSuccess: (saved) => {
          toast.ok(`${saved.origin} is saved`, {
            description: 'It is tried at the next clone, pull or push.',
          });
          onClose();
        },
      },
    );
  };
  return (
    <Dialog
      open
      sticky={password !== ''}
      onOpenChange={(open) => {
        if (!open) onClose();
      }}
      title={host ? `Change ${host.origin}` : 'Add a git host'}
      footer={
        <>
          <Button onClick={onClose}>Cancel</Button>
          <Button type="submit" form={FORM_ID} variant="primary" busy={put.isPending}>
            Save
          </Button>
        </>
      }
    >
      <form id={FORM_ID} onSubmit={submit} noValidate autoComplete="off" className="flex flex-col gap-4">
        {put.isError && about === undefined && <ErrorNote error={put.error} />}
        {!host && (
          <Field
            label="Address"
            hint="The host alone. A repository's address is cut down to it."
            error={about === 'origin' ? refused : tried && origin.trim() === '' ? 'Which host?' : undefined}
          >
            {(control) => (
              <Input
                {...control}
                autoFocus
                type="url"
                inputMode="url"
                placeholder="https://git.example.com"
                autoComplete="off"
                spellCheck={false}
                value={origin}
                onChange={(event) => setOrigin(event.target.value)}
                onBlur={() => {
                  if (origin.trim() !== '') setOrigin(hostOf(origin));
                }}
              />
            )}
          </Field>
        )}
        <Field
          label="User name"
          hint="Some hosts take any with a token: leave it empty then."
          error={about === 'username' ? refused : undefined}
        >
          {(control) => (
            <Input
              {...control}
              autoComplete="off"
              autoCapitalize="off"
              spellCheck={false}
              value={username}
              onChange={(event) => setUsername(event.target.value)}
            />
          )}
        </Field>
        <Field
          label="Token or password"
          hint="A token with the right to read and write repositories is best: it can be taken back alone."
          error={about === 'password' ? refused : tried && password === '' ? 'It needs a token.' : undefined}
        >
          {(control) => (
            <PasswordInput
              {...control}
              autoFocus={host !== undefined}
              autoComplete="new-password"
              value={password}
              onChange={(event) => setPassword(event.target.value)}
            />
          )}
        </Field>
      </form>
    </Dialog>
  );
}

function RemoveHost({ host, onClose }: { host: GitHost; onClose: () => void }) {
  const remove = useRemoveGitHost();
  return (
    <ConfirmDialog
      open
      onOpenChange={(open) => {
        if (!open) onClose();
      }}
      title={`Remove ${host.origin}?`}
      action="Remove"
      busy={remove.isPending}
      onConfirm={() =>
        remove.mutate(host.id, {
          onSuccess: () => {
            toast.ok(`${host.origin} is removed`);
            onClose();
          },
        })
      }
    >
      <p>
        Its credential is deleted here. Environments with repositories from there cannot fetch or push until
        there is another. The token itself lives on at the host; take it back there.
      </p>
      {remove.isError && <ErrorNote error={remove.error} />}
    </ConfirmDialog>
  );
}
