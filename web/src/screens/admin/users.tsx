import { Ban, CircleCheck, Ellipsis, KeyRound, ScrollText, UserPlus } from 'lucide-react';
import { useState, type SyntheticEvent } from 'react';
import { useNavigate } from 'react-router';
import {
  useAddUser,
  useSwitchUser,
  useUsers,
  useVoidPassword,
  type Person,
  type PersonWithLink,
} from '@/api/account';
import { ApiError, sentence } from '@/api/errors';
import { exactTime } from '@/app/time';
import { useUserId } from '@/auth/session';
import { Avatar } from '@/ui/avatar';
import { Badge } from '@/ui/badge';
import { Button, IconButton } from '@/ui/button';
import { ConfirmDialog, Dialog } from '@/ui/dialog';
import { ErrorNote, ErrorState } from '@/ui/error-state';
import { Field } from '@/ui/field';
import { Input } from '@/ui/input';
import { List, ListRow } from '@/ui/list';
import { DropdownMenu, type MenuItem } from '@/ui/menu';
import { SkeletonRows } from '@/ui/skeleton';
import { Ago } from '@/ui/time';
import { toast } from '@/ui/toast';
import { Switch } from '@/ui/toggles';
import { More } from '../account/event-list';
import { ShownOnce } from '../account/shown-once';
import { AdminPage } from './frame';

const FORM_ID = 'new-user';

type Asking = { what: 'add' } | { what: 'disable' | 'void'; person: Person };

export function Component() {
  return (
    <AdminPage title="Users" lead="Who has an account on this server, and who may use it.">
      <Users />
    </AdminPage>
  );
}

function Users() {
  const users = useUsers();
  const [asking, setAsking] = useState<Asking>();
  const [made, setMade] = useState<PersonWithLink>();
  const people = users.data?.pages.flatMap((page) => page.users) ?? [];
  const done = () => setAsking(undefined);
  const showLink = (answer: PersonWithLink) => {
    done();
    setMade(answer);
  };
  return (
    <>
      {users.isPending && <SkeletonRows rows={4} label="Loading the users" />}
      {users.isError && users.data === undefined && (
        <ErrorState
          title="The users could not be read"
          error={users.error}
          busy={users.isFetching}
          onRetry={() => void users.refetch()}
        />
      )}
      {users.data !== undefined && (
        <div className="flex flex-col gap-4">
          <div className="flex justify-end">
            <Button icon={UserPlus} onClick={() => setAsking({ what: 'add' })}>
              Add a user
            </Button>
          </div>
          <List aria-label="Users">
            {people.map((one) => (
              <PersonRow key={one.id} person={one} onAsk={(what) => setAsking({ what, person: one })} />
            ))}
          </List>
        </div>
      )}
      <More query={users} />
      {asking?.what === 'add' && <AddUser onMade={showLink} onClose={done} />}
      {asking?.what === 'disable' && <DisableUser person={asking.person} onClose={done} />}
      {asking?.what === 'void' && <VoidPassword person={asking.person} onMade={showLink} onClose={done} />}
      {made && (
        <ShownOnce
          title={`A link for ${made.user.name}`}
          secret={made.link.url}
          label="The link"
          onClose={() => setMade(undefined)}
        >
          <p>
            It sets the password of {made.user.email}, once, until {exactTime(made.link.expiresAt)}. It goes
            there by mail too, where the server has a mail server. Whoever has it is that person: hand it over
            in private.
          </p>
        </ShownOnce>
      )}
    </>
  );
}

function PersonRow({ person, onAsk }: { person: Person; onAsk: (what: 'disable' | 'void') => void }) {
  const mine = useUserId() === person.id;
  const navigate = useNavigate();
  const turn = useSwitchUser();
  const disabled = person.disabledAt !== null;
  const enable = () =>
    turn.mutate(
      { id: person.id, on: true },
      {
        onSuccess: () => toast.ok(`${person.name} may sign in again`),
        onError: (error) => toast.failed(`${person.name} could not be enabled`, error),
      },
    );
  const items: MenuItem[] = [
    {
      label: 'What they did',
      icon: ScrollText,
      onSelect: () => void navigate(`/settings/audit?by=${person.id}`),
    },
    {
      label: 'New link for the password…',
      icon: KeyRound,
      disabled: disabled || mine,
      onSelect: () => onAsk('void'),
    },
    disabled
      ? { label: 'Enable', icon: CircleCheck, onSelect: enable }
      : { label: 'Disable…', icon: Ban, danger: true, disabled: mine, onSelect: () => onAsk('disable') },
  ];
  return (
    <ListRow className="items-start py-3">
      <Avatar name={person.name} className="mt-0.5 size-7" />
      <div className="min-w-0 flex-1">
        <p className="flex flex-wrap items-center gap-x-2 gap-y-1 text-base font-medium">
          <span className="min-w-0 truncate">{person.name}</span>
          {mine && <Badge>you</Badge>}
          {person.isAdmin && <Badge tone="accent">administrator</Badge>}
          {disabled && <Badge tone="bad">disabled</Badge>}
          {!person.hasPassword && <Badge tone="warn">no password yet</Badge>}
        </p>
        <p className="mt-0.5 flex flex-wrap gap-x-3 text-sm text-fg-3">
          <span className="min-w-0 break-all text-fg-2">{person.email}</span>
          <span>{person.emailVerified ? 'confirmed' : 'not confirmed'}</span>
          {person.lastLoginAt === null || !person.hasPassword ? (
            <span>
              Added <Ago at={person.createdAt} />
            </span>
          ) : (
            <span>
              Signed in <Ago at={person.lastLoginAt} />
            </span>
          )}
        </p>
      </div>
      <DropdownMenu items={items}>
        <IconButton
          icon={Ellipsis}
          label={`More about ${person.email}`}
          busy={turn.isPending}
          className="-mr-1.5"
        />
      </DropdownMenu>
    </ListRow>
  );
}

function DisableUser({ person, onClose }: { person: Person; onClose: () => void }) {
  const turn = useSwitchUser();
  return (
    <ConfirmDialog
      open
      onOpenChange={(open) => {
        if (!open) onClose();
      }}
      title={`Disable ${person.name}?`}
      action="Disable"
      busy={turn.isPending}
      onConfirm={() =>
        turn.mutate(
          { id: person.id, on: false },
          {
            onSuccess: () => {
              toast.ok(`${person.name} is disabled`);
              onClose();
            },
          },
        )
      }
    >
      <p>
        {person.email} is signed out everywhere within seconds and cannot sign in. Access tokens are revoked
        for good. Environments and what runs in them stay.
      </p>
      {turn.isError && <ErrorNote error={turn.error} />}
    </ConfirmDialog>
  );
}

function VoidPassword({
  person,
  onMade,
  onClose,
}: {
  person: Person;
  onMade: (made: PersonWithLink) => void;
  onClose: () => void;
}) {
  const voided = useVoidPassword();
  return (
    <ConfirmDialog
      open
      onOpenChange={(open) => {
        if (!open) onClose();
      }}
      title={`A new password for ${person.name}?`}
      action="Void the password"
      busy={voided.isPending}
      onConfirm={() => voided.mutate(person.id, { onSuccess: onMade })}
    >
      <p>
        The password that {person.email} has does not work any more, and all sign-ins and access tokens end.
        You get a link that sets a new one, to hand over.
      </p>
      {voided.isError && <ErrorNote error={voided.error} />}
    </ConfirmDialog>
  );
}

/** Which field a refusal is about; what is about none is said above the form. Pure. */
export function userRefusal(error: unknown): { email?: string; name?: string } {
  if (!(error instanceof ApiError)) return {};
  if (error.code === 'BAD_EMAIL' || error.code === 'EMAIL_TAKEN') return { email: sentence(error.message) };
  return error.code === 'BAD_NAME' ? { name: sentence(error.message) } : {};
}

function AddUser({ onMade, onClose }: { onMade: (made: PersonWithLink) => void; onClose: () => void }) {
  const [name, setName] = useState('');
  const [email, setEmail] = useState('');
  const [isAdmin, setIsAdmin] = useState(false);
  const [tried, setTried] = useState(false);
  const add = useAddUser();
  const refused = userRefusal(add.error);
  const badName = name.trim() === '' ? 'Say how they are called.' : undefined;
  const badEmail = /^\S+@\S+$/u.test(email.trim()) ? undefined : 'This is no e-mail address.';
  const submit = (event: SyntheticEvent) => {
    event.preventDefault();
    setTried(true);
    if (badName !== undefined || badEmail !== undefined || add.isPending) return;
    add.mutate({ name: name.trim(), email: email.trim(), isAdmin }, { onSuccess: onMade });
  };
  return (
    <Dialog
      open
      sticky={name !== '' || email !== ''}
      onOpenChange={(open) => {
        if (!open) onClose();
      }}
      title="Add a user"
      description="They set their password by a link. The server's setting on registration does not matter here."
      footer={
        <>
          <Button onClick={onClose}>Cancel</Button>
          <Button type="submit" form={FORM_ID} variant="primary" busy={add.isPending}>
            Add
          </Button>
        </>
      }
    >
      <form id={FORM_ID} onSubmit={submit} noValidate autoComplete="off" className="flex flex-col gap-4">
        {add.isError && Object.keys(refused).length === 0 && <ErrorNote error={add.error} />}
        <Field label="Name" error={refused.name ?? (tried ? badName : undefined)}>
          {(control) => (
            <Input
              {...control}
              autoFocus
              autoComplete="off"
              maxLength={200}
              value={name}
              onChange={(event) => {
                setName(event.target.value);
                add.reset();
              }}
            />
          )}
        </Field>
        <Field label="E-mail address" error={refused.email ?? (tried ? badEmail : undefined)}>
          {(control) => (
            <Input
              {...control}
              type="email"
              autoComplete="off"
              maxLength={254}
              value={email}
              onChange={(event) => {
                setEmail(event.target.value);
                add.reset();
              }}
            />
          )}
        </Field>
        <Switch
          label="Administrator"
          hint="Sees all users and the audit log, and may do what you do here."
          checked={isAdmin}
          onCheckedChange={setIsAdmin}
        />
      </form>
    </Dialog>
  );
}
