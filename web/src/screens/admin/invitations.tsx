import { MailPlus, Plus, Trash2 } from 'lucide-react';
import { useState, type SyntheticEvent } from 'react';
import { useInvitations, useInvite, useRevokeInvitation, type OpenInvitation } from '@/api/account';
import { ApiError, sentence } from '@/api/errors';
import type { Invitation } from '@/api/types';
import { exactTime } from '@/app/time';
import { useUserId } from '@/auth/session';
import { Button, IconButton } from '@/ui/button';
import { ConfirmDialog, Dialog } from '@/ui/dialog';
import { EmptyState } from '@/ui/empty';
import { ErrorNote, ErrorState } from '@/ui/error-state';
import { Field } from '@/ui/field';
import { Input } from '@/ui/input';
import { List, ListRow } from '@/ui/list';
import { SkeletonRows } from '@/ui/skeleton';
import { Ago } from '@/ui/time';
import { toast } from '@/ui/toast';
import { ending } from '../account/ending';
import { ShownOnce } from '../account/shown-once';
import { invitationLink } from '../auth/password';
import { AdminPage } from './frame';

const FORM_ID = 'invitation';

export function Component() {
  return (
    <AdminPage
      title="Invitations"
      lead="A link with which one person makes an account, once, where the server is not open to everybody. Those that were used or have expired are not listed."
    >
      <Invitations />
    </AdminPage>
  );
}

function Invitations() {
  const invitations = useInvitations();
  const [making, setMaking] = useState(false);
  const [made, setMade] = useState<Invitation>();
  const [revoking, setRevoking] = useState<OpenInvitation>();
  const add = (
    <Button icon={Plus} onClick={() => setMaking(true)}>
      Invite somebody
    </Button>
  );
  return (
    <>
      {invitations.isPending && <SkeletonRows rows={2} label="Loading the invitations" />}
      {invitations.isError && invitations.data === undefined && (
        <ErrorState
          title="The invitations could not be read"
          error={invitations.error}
          busy={invitations.isFetching}
          onRetry={() => void invitations.refetch()}
        />
      )}
      {invitations.data?.length === 0 && (
        <EmptyState
          icon={MailPlus}
          title="Nobody is invited"
          action={add}
          className="rounded-lg border border-line py-10"
        >
          You get a link, and hand it to whom you invite.
        </EmptyState>
      )}
      {invitations.data !== undefined && invitations.data.length > 0 && (
        <div className="flex flex-col gap-4">
          <div className="flex justify-end">{add}</div>
          <List aria-label="Invitations">
            {invitations.data.map((one) => (
              <InvitationRow key={one.id} invitation={one} onRevoke={() => setRevoking(one)} />
            ))}
          </List>
        </div>
      )}
      {making && (
        <Invite
          onMade={(invitation) => {
            setMaking(false);
            setMade(invitation);
          }}
          onClose={() => setMaking(false)}
        />
      )}
      {made && (
        <ShownOnce
          title="The invitation"
          secret={invitationLink(window.location.origin, made.token, made.email)}
          label="The invitation's link"
          onClose={() => setMade(undefined)}
        >
          <p>
            It makes one account{made.email === null ? '' : `, for ${made.email} alone`}, until{' '}
            {exactTime(made.expiresAt)}. No mail is sent: hand the link over yourself.
          </p>
        </ShownOnce>
      )}
      {revoking && <Revoke invitation={revoking} onClose={() => setRevoking(undefined)} />}
    </>
  );
}

/** How an invitation is called: by its address, or that it is for anybody. */
function nameOf({ email }: Pick<OpenInvitation, 'email'>): string {
  return email ?? 'whoever has the link';
}

function InvitationRow({ invitation, onRevoke }: { invitation: OpenInvitation; onRevoke: () => void }) {
  const [now] = useState(() => Date.now());
  const mine = useUserId() === invitation.createdBy;
  return (
    <ListRow className="items-start py-3">
      <MailPlus aria-hidden className="mt-0.5 size-4 shrink-0 text-fg-3" />
      <div className="min-w-0 flex-1">
        <p className="text-base font-medium break-all">For {nameOf(invitation)}</p>
        <p className="mt-0.5 flex flex-wrap gap-x-3 text-sm text-fg-3">
          <span>
            Made <Ago at={invitation.createdAt} />
            {mine ? ' by you' : invitation.createdBy === null ? ' at the machine' : ''}
          </span>
          <span title={exactTime(invitation.expiresAt)} className="first-letter:uppercase">
            {ending(invitation.expiresAt, now).words}
          </span>
        </p>
      </div>
      <IconButton
        icon={Trash2}
        variant="danger-ghost"
        label={`Take back the invitation for ${nameOf(invitation)}`}
        onClick={onRevoke}
        className="-mr-1.5"
      />
    </ListRow>
  );
}

function Invite({ onMade, onClose }: { onMade: (made: Invitation) => void; onClose: () => void }) {
  const [email, setEmail] = useState('');
  const [tried, setTried] = useState(false);
  const invite = useInvite();
  const address = email.trim();
  const bad = address === '' || /^\S+@\S+$/u.test(address) ? undefined : 'This is no e-mail address.';
  const refused =
    invite.error instanceof ApiError && invite.error.code === 'BAD_EMAIL'
      ? sentence(invite.error.message)
      : undefined;
  const submit = (event: SyntheticEvent) => {
    event.preventDefault();
    setTried(true);
    if (bad !== undefined || invite.isPending) return;
    invite.mutate(address, { onSuccess: onMade });
  };
  return (
    <Dialog
      open
      onOpenChange={(open) => {
        if (!open) onClose();
      }}
      title="Invite somebody"
      footer={
        <>
          <Button onClick={onClose}>Cancel</Button>
          <Button type="submit" form={FORM_ID} variant="primary" busy={invite.isPending}>
            Make the link
          </Button>
        </>
      }
    >
      <form id={FORM_ID} onSubmit={submit} noValidate autoComplete="off" className="flex flex-col gap-4">
        {invite.isError && refused === undefined && <ErrorNote error={invite.error} />}
        <Field
          label="E-mail address"
          hint="With one, only that address can use the link. Empty: whoever has it."
          error={refused ?? (tried ? bad : undefined)}
        >
          {(control) => (
            <Input
              {...control}
              autoFocus
              type="email"
              autoComplete="off"
              maxLength={254}
              value={email}
              onChange={(event) => {
                setEmail(event.target.value);
                invite.reset();
              }}
            />
          )}
        </Field>
      </form>
    </Dialog>
  );
}

function Revoke({ invitation, onClose }: { invitation: OpenInvitation; onClose: () => void }) {
  const revoke = useRevokeInvitation();
  return (
    <ConfirmDialog
      open
      onOpenChange={(open) => {
        if (!open) onClose();
      }}
      title="Take the invitation back?"
      action="Take back"
      busy={revoke.isPending}
      onConfirm={() =>
        revoke.mutate(invitation.id, {
          onSuccess: () => {
            toast.ok('The invitation is taken back');
            onClose();
          },
        })
      }
    >
      <p>The link for {nameOf(invitation)} does not work any more. An account made with it would stay.</p>
      {revoke.isError && <ErrorNote error={revoke.error} />}
    </ConfirmDialog>
  );
}
